"""Writes protobuf text, so that a config.pbtxt is built from values and needs no protobuf library.

Source: protobuf.dev, "Text Format Language Specification".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union


class EnumWord(str):
    """An enum's value, written without quotes."""

    __slots__ = ()


Scalar: TypeAlias = "bool | int | str"
Value: TypeAlias = Union[Scalar, "Message", Sequence["Message"], Sequence[Scalar]]
Message: TypeAlias = Mapping[str, Value]

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def text_proto(message: Message) -> str:
    """Write a message, one field a line; a sequence is a repeated field."""
    return "".join(f"{line}\n" for name, value in message.items() for line in _field(name, value))


def _field(name: str, value: Value) -> list[str]:
    if isinstance(value, Mapping):
        inner = [f"  {line}" for key, part in value.items() for line in _field(key, part)]
        return [f"{name} {{", *inner, "}"]
    if isinstance(value, (bool, int, str)):
        return [f"{name}: {_scalar(value)}"]
    if all(isinstance(part, (bool, int, str)) for part in value):
        return [f"{name}: [{', '.join(_scalar(part) for part in value if isinstance(part, (bool, int, str)))}]"]
    return [line for part in value for line in _field(name, part)]


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, EnumWord)):
        return str(value)
    return f'"{value.translate(_ESCAPES)}"'
