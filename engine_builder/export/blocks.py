"""Traces one block of each kind: the others are the same operators with their own weights.

A model of dozens of blocks has two or three kinds of them. While the piece is traced a block is one node; afterwards the node calls an ONNX
function, which `simplify` puts in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters
from torch import nn
from torch.fx.experimental.symbolic_shapes import optimization_hint

from engine_builder.export.block_kind import kind_of, state_of
from engine_builder.quantization.backend import FAKE_QUANTIZE_DOMAIN as _DOMAIN
from engine_builder.repeated_block import RepeatedBlock

_BLOCK = "Block"


@dataclass(frozen=True)
class Argument:
    """A tensor that a block is called with."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    """Lengths in the traced example."""
    symbols: tuple[str, ...]
    """Lengths as expressions, by which equal ones are known."""
    dynamic: tuple[int, ...]
    """Axes of no fixed length."""

    def example(self) -> torch.Tensor:
        """Return such a tensor."""
        return torch.ones(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class Call:
    """A block in a piece."""

    block: RepeatedBlock
    arguments: tuple[Argument, ...]

    def kind(self) -> tuple[object, ...]:
        """Return what two blocks have in common if one's operators do for the other."""
        return self.arguments, kind_of(self.block)


@contextmanager
def blocks_as_nodes(module: nn.Module) -> Iterator[Mapping[str, Call]]:
    """Let every `RepeatedBlock` of a module be traced as one node; gives the blocks by name, once they are traced."""
    calls: dict[str, Call] = {}
    blocks = {name: block for name, block in module.named_modules() if isinstance(block, RepeatedBlock)}
    for name, block in blocks.items():
        block.forward = _node_of(name, block, calls)
    try:
        yield calls
    finally:
        for block in blocks.values():
            del block.forward


def expand_blocks(model: ir.Model, calls: Mapping[str, Call], trace: Callable[[Call], ir.Model]) -> None:
    """Make each node of a block a call of its kind's function.

    Args:
        model: A piece that was traced within `blocks_as_nodes`.
        calls: Its blocks.
        trace: Traces one block.
    """
    known: dict[tuple[object, ...], _Function] = {}
    for node in [node for node in model.graph if (node.domain, node.op_type) == (_DOMAIN, _BLOCK)]:
        name = node.attributes["name"].as_string()
        kind = calls[name].kind()
        if kind not in known:
            known[kind] = _Function(model, trace(calls[name]), f"{_BLOCK}{len(known)}", node)
        known[kind].call(node, name, state_of(calls[name].block))


class _Function:
    """A kind of block as a function of a model, whose last inputs are the weights."""

    def __init__(self, model: ir.Model, traced: ir.Model, name: str, first: ir.Node) -> None:
        self._graph, self._name = model.graph, name
        _check_outputs(traced, len(first.outputs))
        lengths = _lengths(traced.graph.inputs, first.inputs)
        weights = list(traced.graph.initializers.values())
        self._weights = {str(value.name): value.const_value for value in weights}
        traced.graph.initializers.clear()
        for value in weights:
            value.const_value = None
        traced.graph.inputs.extend(weights)
        for value in chain(*(node.outputs for node in traced.graph)):
            value.shape = _translated(value.shape, lengths, name)
        model.functions.update(traced.functions)
        function = ir.Function(_DOMAIN, name, graph=traced.graph, attributes=())
        model.functions[function.identifier()] = function
        model.opset_imports.setdefault(_DOMAIN, 1)

    def call(self, node: ir.Node, block: str, state: Mapping[str, torch.Tensor]) -> None:
        """Let a block's node call it, with the block's weights; constants of the code are the same in every block."""
        weights = [
            self._initializer(f"{block}.{name}", tensor_adapters.TorchTensor(state[name]))
            if name in state
            else self._initializer(f"{self._name}.{name}", constant)
            for name, constant in self._weights.items()
        ]
        made = ir.node(
            self._name, [*node.inputs, *weights], domain=_DOMAIN, num_outputs=len(node.outputs), name=block, version=node.version
        )
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.shape, new.type = old.shape, old.type
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], [made], node.outputs, made.outputs)

    def _initializer(self, name: str, tensor: ir.TensorProtocol | None) -> ir.Value:
        known = self._graph.initializers.get(name)
        if known is not None:
            return known
        assert tensor is not None
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value


def _node_of(name: str, block: RepeatedBlock, calls: dict[str, Call]) -> Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]:
    def forward(*inputs: torch.Tensor, **named: object) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if named or not all(isinstance(each, torch.Tensor) for each in inputs):
            raise ValueError(f"block {name} is called with other things than tensors by position: give it those alone")
        call = Call(block, tuple(map(_argument, inputs)))
        if calls.setdefault(name, call) != call:
            raise ValueError(f"block {name} is called twice, with tensors of different shapes: make it two blocks, or none")
        like = inputs[: block.outputs]
        made = torch.onnx.ops.symbolic_multi_out(
            f"{_DOMAIN}::{_BLOCK}",
            inputs,
            {"name": name},
            dtypes=[tensor.dtype for tensor in like],
            shapes=[tensor.shape for tensor in like],
            version=1,
        )
        return made[0] if block.outputs == 1 else tuple(made)

    return forward


def _argument(tensor: torch.Tensor) -> Argument:
    lengths = tuple(optimization_hint(length) for length in tensor.shape)
    dynamic = tuple(axis for axis, length in enumerate(tensor.shape) if isinstance(length, torch.SymInt))
    return Argument(tensor.dtype, lengths, tuple(map(str, tensor.shape)), dynamic)


def _check_outputs(traced: ir.Model, count: int) -> None:
    """Hold a block to what `RepeatedBlock` promises, as far as fixed lengths tell."""
    if len(traced.graph.outputs) != count:
        raise ValueError(f"a block returns {len(traced.graph.outputs)} tensors, and its `outputs` says {count}")
    for output, like in zip(traced.graph.outputs, traced.graph.inputs, strict=False):
        fixed = [[length if isinstance(length, int) else None for length in value.shape or ()] for value in (output, like)]
        if output.dtype is not like.dtype or fixed[0] != fixed[1]:
            wanted = f"{like.dtype}{like.shape}, as input {like.name}"
            raise ValueError(
                f"a block returns {output.dtype}{output.shape} where it has to return {wanted}: order its inputs so, or pass it on"
            )


def _lengths(inputs: Sequence[ir.Value], arguments: Sequence[ir.Value | None]) -> dict[str, ir.SymbolicDim | int]:
    """Return what the symbols of a traced block are in the piece that calls it."""
    lengths: dict[str, ir.SymbolicDim | int] = {}
    for value, argument in zip(inputs, arguments, strict=True):
        if argument is not None and value.shape is not None and argument.shape is not None:
            lengths.update(zip(map(str, value.shape), argument.shape, strict=True))
    return lengths


def _translated(shape: ir.Shape | None, lengths: Mapping[str, ir.SymbolicDim | int], name: str) -> ir.Shape | None:
    """Return a shape in the piece's symbols, so that lengths are known to be equal across blocks; sums of them stay the block's own."""
    if shape is None:
        return None
    return ir.Shape([length if isinstance(length, int) else lengths.get(str(length), f"{name}.{length}") for length in shape])
