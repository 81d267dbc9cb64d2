"""From a piece to its file: trace, simplify, lower quantizers, clean up, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from engine_builder.export.cleanup import drop_empty_squeezes, name_axes, simplify, tidy
from engine_builder.export.lowering import lower_quantizers
from engine_builder.export.trace import trace
from engine_builder.export.widening import widened
from engine_builder.families.base import GraphModule

INLINE_LIMIT_BYTES = 1 << 26
"""Weights above this lie beside the graph: a composed graph then shares them, and TensorRT maps them instead of reading them.

A protobuf message also cannot pass 2 GiB, and costs several times its size in memory.
"""


@dataclass(frozen=True)
class ExportedGraph:
    """An ONNX file."""

    name: str
    """Piece."""
    path: Path
    """The graph."""
    data: tuple[Path, ...]
    """Weights beside it, in its folder; empty where they are in it."""
    quantizers: int
    """Number of quantized tensors."""
    emulated: bool
    """True where FP8, MXFP8 and NVFP4 were to be written as plain arithmetic."""
    portable: bool
    """True where every operator is ONNX's own, so that any runtime can run it."""
    relative_error: float | None = None
    """‖graph − torch‖₂ / ‖torch‖₂; None where it was not measured."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in (self.path, *self.data))

    def with_error(self, relative_error: float | None) -> ExportedGraph:
        """Return it with its measured error."""
        return replace(self, relative_error=relative_error)


@dataclass(frozen=True)
class TracedGraph:
    """A piece as ONNX operators in memory: its weights where torch has them, its quantizers as single nodes."""

    graph: GraphModule
    model: ir.Model

    def write(self, path: Path, *, emulate: bool = False) -> ExportedGraph:
        """Write it; as often as is wanted, as long as the piece's weights are as they were.

        Args:
            path: `….onnx`; weights above 64 MiB go to `….onnx.data` beside it.
            emulate: Write FP8, MXFP8 and NVFP4 as plain FP32 arithmetic, for runtimes without such kernels, which OpenVINO's and ONNX
                Runtime's on a CPU are; weights then have full size. INT8 is the same either way.
        """
        model = self.model.clone()
        quantizers = lower_quantizers(model, emulate=emulate)
        tidy(model)
        name_axes(model, self.graph)
        data = write(model, path)
        portable = all(node.domain == "" for node in model.graph)
        return ExportedGraph(self.graph.name, path, data, quantizers, emulate, portable)

    def widened(self) -> TracedGraph:
        """Return a BF16 graph in FP32: what runtimes without BF16 can compare with torch."""
        return TracedGraph(self.graph, widened(self.model))


def trace_graph(graph: GraphModule, example: Mapping[str, int]) -> TracedGraph:
    """Trace a piece, batch and named axes dynamic.

    Args:
        graph: The piece; where its component is quantized, so is the graph.
        example: A length of each named axis to trace with, each above 1.

    Raises:
        CompileError: The piece cannot be traced; the message names it.
    """
    model = trace(graph, example)
    simplify(model)
    drop_empty_squeezes(model)
    return TracedGraph(graph, model)


def export_graph(graph: GraphModule, path: Path, *, example: Mapping[str, int], emulate: bool = False) -> ExportedGraph:
    """Trace a piece and write it; see `trace_graph` and `TracedGraph.write`."""
    return trace_graph(graph, example).write(path, emulate=emulate)


def write(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Write a graph; returns the files of its weights beside it. Weights that are files beside it already stay where they are."""
    model.producer_name = "diffusion-operator"
    model.producer_version = None
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    beside = {path.parent / tensor.location for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    inline = sum(tensor.nbytes for tensor in tensors if not isinstance(tensor, ir.ExternalTensor))
    if beside or inline <= INLINE_LIMIT_BYTES:  # Composed: what is inline is small in every piece.
        ir.save(model, path)
        return tuple(sorted(beside))
    name = path.name + ".data"
    ir.save(model, path, external_data=name)
    return (path.parent / name,)
