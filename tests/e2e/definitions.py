"""The fields of a CustomResourceDefinition's schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def fields_of(crd: Mapping[str, Any]) -> set[str]:
    """Return the paths of every field of the first version: `.spec.model.uri`."""
    return set(_paths(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], ""))


def _paths(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _paths(field, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, Mapping):
            yield from _paths(inner, path)
