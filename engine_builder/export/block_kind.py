"""When two blocks of a piece are the same operators on different weights. In doubt they are not: then each is traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from engine_builder.repeated_block import RepeatedBlock

_PLAIN = frozenset({bool, int, str, bytes, type(None), torch.dtype, torch.device, type, FunctionType, BuiltinFunctionType})
_OF_MODULES = frozenset({"_modules", "_parameters", "_buffers"})
_OF_MODELOPT = frozenset({"_amax_for_smoothing", "_calibrator", "_dm_attribute_manager"})
"""What its modules keep of their calibration, and of what they were made from."""
_PROTOCOL = 4
"""Of pickle: what an object says of itself to be copied."""
_DEEPEST, _MOST = 50, 20_000
"""How deep, and at how many objects of a block, is looked."""


def kind_of(block: RepeatedBlock) -> tuple[object, ...]:
    """Return what two blocks have in common if a trace of one does for the other: all that differs is numbers in equally shaped tensors."""
    identity = _Identity(block)
    unread = _OF_MODULES | _OF_MODELOPT | block.unread
    modules = tuple(
        (name, type(module), identity.of({key: value for key, value in sorted(vars(module).items()) if key not in unread}))
        for name, module in block.named_modules(remove_duplicate=False)
    )
    tensors = tuple((name, identity.of(tensor), tensor.shape, tensor.dtype) for name, tensor in state_of(block).items())
    return modules, tensors


def state_of(block: nn.Module) -> dict[str, torch.Tensor]:
    """Return a block's parameters and buffers, one that has two names by both."""
    return {**dict(block.named_parameters(remove_duplicate=False)), **dict(block.named_buffers(remove_duplicate=False))}


class _Itself:
    """Equal to what holds the very same object, which thereby lives on: another could else get its `id`."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


class _Identity:
    """Tells of values that a block holds whether a trace reads the same from them and from another block's."""

    def __init__(self, block: nn.Module) -> None:
        self._names: dict[int, str] = {}
        for name, part in [*block.named_modules(remove_duplicate=False), *state_of(block).items()]:
            self._names.setdefault(id(part), name)
        self._met: dict[int, tuple[int, object]] = {}

    def of(self, value: Any, depth: int = 0) -> object:
        """Return what equal values have in common; of one that was met before, when that was."""
        if isinstance(value, (torch.Tensor, nn.Module)):  # One that is not the block's is a constant of its trace.
            return self._names.get(id(value)) or _Itself(value)
        if type(value) is float:
            return repr(value)  # NaN is not equal to itself.
        if type(value) in _PLAIN:
            return type(value), value
        if id(value) in self._met:
            return self._met[id(value)][0]
        self._met[id(value)] = len(self._met), value
        parts = _parts(value) if depth < _DEEPEST and len(self._met) < _MOST else None
        return _Itself(value) if parts is None else (type(value), *(self.of(part, depth + 1) for part in parts))


def _parts(value: Any) -> Iterable[object] | None:
    """Return all that a copy of an object would be made of; None where that is not to be had."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if type(value) in {list, tuple}:
        parts: Iterable[object] = value
        return parts
    if type(value) is dict:
        return (part for item in value.items() for part in item)
    try:
        reduced = value.__reduce_ex__(_PROTOCOL)
    except (
        Exception
    ):  # A class may raise anything that it cannot be copied; its object is then equal to itself alone, which is always safe.
        return None
    if not isinstance(reduced, tuple):  # A name, by which another may go too.
        return None
    return *(tuple(part) if isinstance(part, Iterator) else part for part in reduced), getattr(value, "__dict__", None)
