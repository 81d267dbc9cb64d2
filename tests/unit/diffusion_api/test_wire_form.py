"""What is written can be read: unset fields are left out of the wire form, so each that may be unset needs a default."""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing

import diffusion_api
from diffusion_api.base import ApiModel


def every_model() -> list[type[ApiModel]]:
    for module in pkgutil.iter_modules(diffusion_api.__path__):
        if module.name != "__main__":
            importlib.import_module(f"diffusion_api.{module.name}")
    found, waiting = [], [ApiModel]
    while waiting:
        model = waiting.pop()
        found.append(model)
        waiting += model.__subclasses__()
    return found


def test_a_field_that_may_be_none_has_a_default() -> None:
    wrong = [
        f"{model.__name__}.{name}"
        for model in every_model()
        for name, field in model.model_fields.items()
        if typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
        and type(None) in typing.get_args(field.annotation)
        and field.is_required()
    ]
    assert len(every_model()) > 20
    assert wrong == []
