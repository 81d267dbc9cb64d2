"""From a mapping, as YAML or the API server gives it, to a checked value, or to the list of everything that is wrong with it.

Reads the wire form alone (camelCase names, JSON types without conversion), so that what passes here passes the CRD's schema as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from diffusion_api.base import ApiModel
from diffusion_api.build_job import BuildJob
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.engine import DiffusionEngine
from diffusion_api.error_wording import is_echo, kind_of, problem_of
from diffusion_api.problems import InvalidSpecError, Problem

__all__ = ["InvalidSpecError", "Problem", "parse_build_job", "parse_deployment", "parse_engine"]

Model = TypeVar("Model", bound=ApiModel)


def parse_deployment(mapping: object) -> DiffusionDeployment:
    """Read a DiffusionDeployment.

    Args:
        mapping: The whole object: apiVersion, kind, metadata, spec and, from a cluster, status. A status that cannot be read counts
            as absent, for it is only what was observed last and is observed anew.

    Raises:
        InvalidSpecError: Its author must change it; lists every problem with its path.
    """
    return _parse_resource(mapping, DiffusionDeployment)


def parse_engine(mapping: object) -> DiffusionEngine:
    """Read a DiffusionEngine; as `parse_deployment`."""
    return _parse_resource(mapping, DiffusionEngine)


def parse_build_job(mapping: object) -> BuildJob:
    """Read a job file; `apiVersion` and `kind` may be left out.

    Raises:
        InvalidSpecError: Its author must change it; lists every problem with its path.
    """
    return _validated(_wire_form(mapping), BuildJob)


def _parse_resource(mapping: object, resource: type[Model]) -> Model:
    wire = _wire_form(mapping)
    header = _header_problems(wire, resource)
    status = wire.pop("status", None)
    try:
        parsed = _validated(wire, resource)
    except InvalidSpecError as error:
        raise InvalidSpecError([*header, *error.problems]) from None
    if header:
        raise InvalidSpecError(header)
    if status is None:
        return parsed
    try:
        return _validated({**wire, "status": status}, resource)
    except InvalidSpecError:
        return parsed  # As the docstring says: an unreadable status counts as absent.


def _header_problems(wire: dict[str, object], resource: type[ApiModel]) -> list[Problem]:
    wanted = {"apiVersion": resource.model_fields["api_version"].default, "kind": resource.model_fields["kind"].default}
    return [Problem(name, f"is required; write {name}: {value}") for name, value in wanted.items() if name not in wire]


def _validated(wire: dict[str, object], model: type[Model]) -> Model:
    try:
        return model.model_validate_json(json.dumps(wire), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidSpecError([problem_of(detail, model) for detail in error.errors() if not is_echo(detail)]) from None


def _wire_form(mapping: object) -> dict[str, object]:
    if not isinstance(mapping, Mapping):
        raise InvalidSpecError([Problem("", f"expected a mapping of fields, not {kind_of(mapping)}")])
    try:
        wire: dict[str, object] = json.loads(json.dumps(_without_nulls(mapping), default=str))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSpecError([Problem("", f"cannot be written as JSON, as every Kubernetes object must: {error}")]) from None
    return wire


def _without_nulls(value: object) -> object:
    """Leave out fields that hold null, as the API server does before it fills in defaults."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value
