"""Changes to a resource, drawn from the schema of its CRD: right, wrong, at the bounds, and beyond them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies

CRD = Path(__file__).parents[3] / "crds" / "diffusiondeployments.yaml"
HUGE = 2**63 - 1
DELETED = object()
"""In place of a value: the field is taken out."""


@dataclass(frozen=True)
class Field:
    """A field of the spec."""

    path: tuple[str | int, ...]
    schema: Mapping[str, Any]


def spec_fields() -> tuple[Field, ...]:
    """Every field of `spec`, at any depth; of a list, the first item's."""
    (version,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
    return tuple(_below(Field((), version["schema"]["openAPIV3Schema"]["properties"]["spec"])))


def _below(field: Field) -> Iterator[Field]:
    if field.path:
        yield field
    for name, schema in field.schema.get("properties", {}).items():
        yield from _below(Field((*field.path, name), schema))
    if "items" in field.schema:
        yield from _below(Field((*field.path, 0), field.schema["items"]))


def mutated_specs(spec: Mapping[str, Any]) -> strategies.SearchStrategy[dict[str, Any]]:
    """The spec with one to three fields changed."""
    edit = strategies.sampled_from(spec_fields()).flatmap(lambda field: _values(field.schema).map(lambda value: (field.path, value)))
    return strategies.lists(edit, min_size=1, max_size=3).map(lambda edits: _edited(spec, edits))


def _values(schema: Mapping[str, Any]) -> strategies.SearchStrategy[Any]:
    wrong = strategies.sampled_from([None, DELETED, "", 0, -1, [], {}, "text", {"unknown": True}])
    return strategies.one_of(_right(schema), _right(schema), wrong)


def _right(schema: Mapping[str, Any]) -> strategies.SearchStrategy[Any]:
    if "enum" in schema:
        return strategies.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return strategies.booleans()
        case "integer":
            low, high = schema.get("minimum", -HUGE), schema.get("maximum", HUGE)
            step = schema.get("multipleOf", 1)
            bounds = strategies.sampled_from([low, high, low - 1, high + 1])
            return strategies.one_of(
                bounds, strategies.integers(low // step, min(high, low + 10_000) // step).map(lambda number: number * step)
            )
        case "number":
            return strategies.floats(schema.get("minimum", -1e9), schema.get("maximum", 1e9), allow_nan=False)
        case "string":
            return strategies.one_of(
                strategies.text("abz019-_./:é\u202e\x00 ", max_size=40),
                strategies.sampled_from(["hf://owner/other", "pvc://claim/path", "a" * 300]),
            )
        case "array":
            return strategies.lists(strategies.deferred(lambda: _right(schema["items"])), max_size=3)
        case "object":
            kept = {name: _right(each) for name, each in schema.get("properties", {}).items()}
            return strategies.fixed_dictionaries({}, optional=kept)
    return strategies.text(max_size=10)


def _edited(spec: Mapping[str, Any], edits: list[tuple[tuple[str | int, ...], Any]]) -> dict[str, Any]:
    edited = copy.deepcopy(dict(spec))
    for path, value in edits:
        _set(edited, path, value)
    return edited


def _set(target: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Set one field; what an earlier edit made of the way to it may not lead there any more."""
    *way, last = path
    for index, name in enumerate(way):
        if isinstance(target, dict) and isinstance(name, str):
            if target.get(name) is None:
                target[name] = [{}] if path[index + 1] == 0 else {}
            target = target[name]
        elif isinstance(target, list) and target:
            target = target[0]
        else:
            return
    if isinstance(target, dict) and isinstance(last, str):
        if value is DELETED:
            target.pop(last, None)
        else:
            target[last] = value
    elif isinstance(target, list):
        target[:1] = [] if value is DELETED else [value]
