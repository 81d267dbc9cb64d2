"""Changes to a resource, drawn from the schema of its CRD: most are such that the API server takes them, some are wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies

from tests.unit.diffusion_api.api_server import broken_rules, with_defaults

CRD = Path(__file__).parents[3] / "crds" / "diffusiondeployments.yaml"
HUGE = 2**63 - 1
DELETED = object()
"""In place of a value: the field is taken out."""
TEXTS = (
    *("hf://owner/other", "pvc://claim/path", "s3://bucket/key", "https://host/model", "oci://host/name:tag", "a" * 250, "a.b-c", "other"),
    *("CPU", "NVIDIA-B200", "NVIDIA-H200", "1g.23gb", "2g.45gb", "9.0", "12.1"),
)
LABEL_LENGTH = 63
"""A text no longer than this is a label's value: any other, which no schema refuses, is refused in a pod's template."""
COMPONENTS = ("textEncoder", "vae", "other")


@dataclass(frozen=True)
class Field:
    """A field of the spec."""

    path: tuple[str | int, ...]
    schema: Mapping[str, Any]


@cache
def spec_schema() -> Mapping[str, Any]:
    """The schema of `spec`."""
    (version,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def spec_fields() -> tuple[Field, ...]:
    """Every field of `spec`, at any depth; of a list, the first item's."""
    return tuple(_below(Field((), spec_schema())))


def _below(field: Field) -> Iterator[Field]:
    if field.path:
        yield field
    for name, schema in field.schema.get("properties", {}).items():
        yield from _below(Field((*field.path, name), schema))
    if "items" in field.schema:
        yield from _below(Field((*field.path, 0), field.schema["items"]))


def mutated_specs(spec: Mapping[str, Any]) -> strategies.SearchStrategy[dict[str, Any]]:
    """The spec with one to three fields changed. Three of four hold the schema and its rules as far as is known here."""
    right, any_value = (_edits(spec, values) for values in (_right, _values))
    # Of equal branches `one_of` takes one.
    return strategies.sampled_from((True, True, True, False)).flatmap(lambda is_right: right.filter(is_accepted) if is_right else any_value)


def is_accepted(spec: Mapping[str, Any]) -> bool:
    """Whether the API server should take a spec whose values are of the right types; the unit tests' CEL evaluates the rules."""
    completed = with_defaults(dict(spec_schema()), _pruned(spec_schema(), spec))
    return _has_required(spec_schema(), completed) and not any(broken_rules(dict(spec_schema()), completed))


def _has_required(schema: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, list):
        return all(_has_required(schema["items"], item) for item in value)
    if not isinstance(value, dict):
        return True
    fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return set(schema.get("required", ())) <= set(value) and all(_has_required(fields.get(name, others), value[name]) for name in value)


def _pruned(schema: Mapping[str, Any], value: Any) -> Any:
    """As the API server does it: what no schema knows goes, and so do nulls."""
    if isinstance(value, list):
        return [_pruned(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    others, known = schema.get("additionalProperties"), schema.get("properties", {})
    kept = {name: known.get(name, others) for name in value if (name in known or others) and value[name] is not None}
    return {name: _pruned(each, value[name]) for name, each in kept.items()}


def _edits(
    spec: Mapping[str, Any], values: Callable[[Mapping[str, Any]], strategies.SearchStrategy[Any]]
) -> strategies.SearchStrategy[dict[str, Any]]:
    edit = strategies.sampled_from(spec_fields()).flatmap(lambda field: values(field.schema).map(lambda value: (field.path, value)))
    return strategies.lists(edit, min_size=1, max_size=3).map(lambda edits: _edited(spec, edits))


def _values(schema: Mapping[str, Any]) -> strategies.SearchStrategy[Any]:
    wrong = strategies.sampled_from([None, DELETED, "", 0, -1, [], {}, "text", {"unknown": True}])
    bounds = [schema[name] + step for name, step in (("minimum", -1), ("maximum", 1)) if name in schema]
    return strategies.one_of(_right(schema), wrong, strategies.sampled_from(bounds) if bounds else wrong)


def _right(schema: Mapping[str, Any]) -> strategies.SearchStrategy[Any]:
    if "enum" in schema:
        return strategies.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return strategies.booleans()
        case "integer":
            low, high = schema.get("minimum", -HUGE), schema.get("maximum", HUGE)
            step = _step(schema)
            inner = strategies.integers(-(-low // step), min(high, low + 10_000) // step).map(lambda number: number * step)
            return strategies.one_of(strategies.sampled_from([low, high]), inner)
        case "number":
            return strategies.floats(schema.get("minimum", -1e9), schema.get("maximum", 1e9), allow_nan=False)
        case "string":
            pattern, longest = schema.get("pattern", ""), schema.get("maxLength", HUGE)
            fitting = strategies.sampled_from([each for each in TEXTS if re.search(pattern, each) and len(each) <= longest])
            if pattern or longest == LABEL_LENGTH:
                return fitting
            return fitting | strategies.text("abz019-_./:é\u202e\x00 ", min_size=schema.get("minLength", 0), max_size=40)
        case "array":
            return strategies.lists(strategies.deferred(lambda: _right(schema["items"])), min_size=schema.get("minItems", 0), max_size=3)
        case "object" if "additionalProperties" in schema:
            return strategies.dictionaries(strategies.sampled_from(COMPONENTS), _right(schema["additionalProperties"]))
        case "object":
            parts = {name: _right(each) for name, each in schema.get("properties", {}).items()}
            required = {name: parts.pop(name) for name in schema.get("required", ())}
            return strategies.fixed_dictionaries(required, optional=parts)
    return strategies.text(max_size=10)


def _step(schema: Mapping[str, Any]) -> int:
    """What an integer must be a multiple of; the schemas say it by a rule."""
    found = [re.fullmatch(r"self % (\d+) == 0", each["rule"]) for each in schema.get("x-kubernetes-validations", ())]
    return next((int(each[1]) for each in found if each), 1)


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
