"""JSON values as YAML that people read: block style, the order kept. A writer alone, so that this package needs no YAML library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

# Text that YAML 1.1 and 1.2 both read as itself without quotes: no indicator, nothing that looks like another type.
PLAIN = re.compile(r"[A-Za-z][\w./-]*( [\w./(-][\w./)-]*)*[.,;]?")
RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def yaml_text(value: object) -> str:
    """Write a JSON value as a YAML document with a line break at its end."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(str(key))}:", item, indent="" if isinstance(item, list | tuple) else "  ")
    elif isinstance(value, list | tuple) and value:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(key: str, item: object, *, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping | Sequence) and not isinstance(item, str) and item:
        yield key
        yield from (indent + line for line in _lines(item))
    else:
        yield f"{key} {_scalar(item)}"


def _scalar(value: object) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
