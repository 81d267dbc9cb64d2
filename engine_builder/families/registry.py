"""Finds the family of a checkpoint; a new module or package in this folder that defines `FAMILIES` is found by itself."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from engine_builder import families
from engine_builder.errors import InvalidModelError
from engine_builder.families.base import Family
from engine_builder.families.diffusers_folder import model_index


@cache
def known_families() -> tuple[Family, ...]:
    """Return every family, in the order of module names. Importing them must not import torch: planning runs without it."""
    found: list[Family] = []
    for module in sorted(pkgutil.iter_modules(families.__path__), key=lambda info: info.name):
        found.extend(getattr(importlib.import_module(f"{families.__name__}.{module.name}"), "FAMILIES", ()))
    return tuple(found)


def family_for(folder: Path) -> Family:
    """Return the family that a diffusers folder is of.

    Raises:
        InvalidModelError: It is no diffusers folder, or its architecture is unknown; the message lists the known ones.
    """
    index = model_index(folder)
    for family in known_families():
        if family.matches(index):
            return family
    known = ", ".join(family.name for family in known_families())
    raise InvalidModelError(f"no family takes a {index.get('_class_name')}; known families: {known}")


def family_named(name: str) -> Family:
    """Return a family by its name, for example the one that a manifest names.

    Raises:
        InvalidModelError: There is no such family.
    """
    for family in known_families():
        if family.name == name:
            return family
    raise InvalidModelError(f"no family is called {name}; known families: {', '.join(family.name for family in known_families())}")
