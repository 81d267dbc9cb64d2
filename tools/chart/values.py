"""Reads `values.yaml` with its comments, which say what each value is and narrow its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

SCHEMA_MARK = "@schema "


class CommentError(ValueError):
    """A comment of values.yaml is missing or no JSON; whoever edits the chart must write it."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml."""

    path: tuple[str, ...]
    """Keys from the top."""
    description: str
    """The comment above it, in one line."""
    default: Any
    """As YAML reads it."""
    overlay: dict[str, Any]
    """What `@schema` lines lay over the schema that the default's type gives."""
    fields: tuple[Value, ...]
    """The keys below it that have comments of their own; none where it is a value as a whole."""


def read_values(text: str) -> tuple[Value, ...]:
    """Read the values of a chart.

    Raises:
        CommentError: A key has no comment, or an `@schema` line is no JSON object.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise CommentError("values.yaml holds no mapping")
    return tuple(_values(root, text.splitlines(), ()))


def _values(node: yaml.MappingNode, lines: Sequence[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, key.value)
        comments = _comments_above(lines, key.start_mark.line)
        overlay = _overlay(comments, here)
        description = " ".join(comment for comment in comments if not comment.startswith(SCHEMA_MARK))
        if not description:
            raise CommentError(f"values.yaml: {'.'.join(here)} has no comment; write above it what it is")
        is_group = isinstance(value, yaml.MappingNode) and bool(value.value) and not overlay
        # A group's keys stand on lines of their own; `{a: b}` is one value.
        fields = tuple(_values(value, lines, here)) if is_group and not value.flow_style else ()
        yield Value(here, description, _plain(value), overlay, fields)


def _comments_above(lines: Sequence[str], line: int) -> list[str]:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.append(lines[line].lstrip().removeprefix("#").strip())
    return found[::-1]


def _overlay(comments: Sequence[str], path: tuple[str, ...]) -> dict[str, Any]:
    overlay: dict[str, Any] = {}
    for comment in comments:
        if comment.startswith(SCHEMA_MARK):
            try:
                overlay |= json.loads(comment.removeprefix(SCHEMA_MARK))
            except (ValueError, TypeError):
                raise CommentError(f"values.yaml: the @schema line of {'.'.join(path)} is no JSON object") from None
    return overlay


def _plain(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)
