"""The API server's part in a test: filling in a schema's defaults, and evaluating its rules with Google's own CEL."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

RULES = "x-kubernetes-validations"
# `isSorted` is of Kubernetes' own list library; the strings library with `format` is CEL's.
IS_SORTED = cel.FunctionDecl(
    "isSorted",
    [cel.Overload("list_is_sorted", cel.Type.BOOL, [cel.Type.List(cel.Type.DYN)], True, lambda values: list(values) == sorted(values))],
)
ENVIRONMENT = cel.NewEnv(
    variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}, extensions=[ext_strings.ExtStrings()], functions=[IS_SORTED]
)


@lru_cache
def compiled(expression: str) -> cel.Expression:
    return ENVIRONMENT.compile(expression)


def evaluate(expression: str, value: object, old: object = None) -> Any:
    result = compiled(expression).eval(data={"self": value, "oldSelf": old})
    assert result.type().name() != "ERROR", f"{expression}: {result.value()}"
    return result.value()


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """As the API server completes an object: a default first, then the defaults inside it.

    Source: k8s.io/apiextensions-apiserver, pkg/apiserver/schema/defaulting.
    """
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    completed = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name not in completed and "default" in field:
            completed[name] = copy.deepcopy(field["default"])
    inner = schema.get("properties", {})
    return {name: with_defaults(inner.get(name, schema.get("additionalProperties", {})), item) for name, item in completed.items()}


def broken_rules(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """`path: message` of every rule that an object breaks; transition rules are passed over."""
    for rule in schema.get(RULES, ()):
        if "oldSelf" not in rule["rule"] and not evaluate(rule["rule"], value):
            message = rule.get("message") or evaluate(rule["messageExpression"], value)
            yield f"{path}: {message}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from broken_rules(schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            field = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            yield from broken_rules(field, item, f"{path}.{name}" if path else name)
