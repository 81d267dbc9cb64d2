"""The JSON schema of the chart's values: strict, so that Helm refuses a misspelt key instead of passing over it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_operator.settings import OperatorSettings
from tools.chart.values import Value

Schema = dict[str, Any]
# Draft 7 is what every release of Helm 3 reads.
DRAFT = "http://json-schema.org/draft-07/schema#"
TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
KUBERNETES = {"type": "object", "description": "Of Kubernetes, which checks it."}
NOISE = ("title", "discriminator")


def values_schema(values: Sequence[Value]) -> Schema:
    """Return the schema of values.yaml, with that of the operator's settings in it."""
    return {"$schema": DRAFT, **_group(values), "$defs": {"Kubernetes": dict(KUBERNETES), **settings_definitions()}}


def schema_text(values: Sequence[Value]) -> str:
    """Return `values.schema.json`."""
    return json.dumps(values_schema(values), indent=2, ensure_ascii=False) + "\n"


def settings_definitions() -> dict[str, Schema]:
    """Return the schema of `OperatorSettings` and of its parts, by name."""
    model = OperatorSettings.model_json_schema(by_alias=True)
    definitions: dict[str, Schema] = model.pop("$defs")
    return {name: _cleaned(each) for name, each in {**definitions, "OperatorSettings": model}.items()}


def _group(values: Sequence[Value]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": {value.path[-1]: _schema(value) for value in values}}


def _schema(value: Value) -> Schema:
    described: Schema = {"description": value.description}
    if "$ref" in value.overlay:
        return described | value.overlay
    if value.fields:
        return described | _group(value.fields)
    return described | {"type": TYPES[type(value.default)], "default": value.default} | value.overlay


def _cleaned(node: Any) -> Any:
    """Take out what says nothing to Helm. A choice by `kind` needs it written, as the settings' own check does."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    kept = {key: _cleaned(item) for key, item in node.items() if key not in NOISE}
    properties = node.get("properties")
    if isinstance(properties, Mapping) and "const" in properties.get("kind", {}):
        kept["required"] = sorted({*node.get("required", ()), "kind"})
    return kept
