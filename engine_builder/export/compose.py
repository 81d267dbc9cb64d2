"""Joins exported pieces end to end into one graph, without exporting again and without copying weights that lie beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from diffusion_api.engine_manifest import TensorSpec
from engine_builder.errors import CompileError
from engine_builder.export.cleanup import border_shape
from engine_builder.export.exporter import ExportedGraph, write


def compose(
    name: str, pieces: Sequence[ExportedGraph], path: Path, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> ExportedGraph:
    """Join pieces in order; an input of a piece is the output of the same name of an earlier one, or else the graph's.

    Args:
        name: Name of the new piece, for example `transformer`.
        pieces: For example prelude, body, head, in one folder.
        path: The new file, in that folder.
        inputs: Inputs of the new graph, in order.
        outputs: Outputs to keep, in order; others (for example a step cache's indicator) are left out with what only they need.

    Raises:
        CompileError: A tensor that a piece wants comes from nowhere; the message names it.
    """
    if any(piece.path.parent != path.parent for piece in pieces):
        raise ValueError("pieces and the composed graph must lie in one folder, where they share weights")
    opsets: dict[str, int] = {}
    known: dict[str, ir.Value] = {spec.name: _input(spec) for spec in inputs}
    graph = ir.Graph(list(known.values()), [], nodes=[], name=name)
    model = ir.Model(graph, ir_version=10)
    for piece in pieces:
        part = ir.load(piece.path)
        model.ir_version = max(model.ir_version, part.ir_version)
        for domain, version in part.opset_imports.items():
            opsets[domain] = max(version, opsets.get(domain, 0))
        _append(graph, part.graph, piece.name, known)
    for spec in outputs:
        if spec.name not in known:
            raise CompileError(f"{name}: no piece makes output {spec.name}")
        graph.outputs.append(known[spec.name])
    model.opset_imports.update(opsets)
    common.RemoveUnusedNodesPass()(model)
    for value, spec in zip(graph.outputs, outputs, strict=True):
        value.name = spec.name
    data = write(model, path)
    return ExportedGraph(
        name, path, data, sum(piece.quantizers for piece in pieces), any(p.emulated for p in pieces), all(p.portable for p in pieces)
    )


def _input(spec: TensorSpec) -> ir.Value:
    dtypes = {"FP32": ir.DataType.FLOAT, "FP16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
    dtype = dtypes.get(spec.dtype.value) or ir.DataType[spec.dtype.value]
    return ir.Value(name=spec.name, type=ir.TensorType(dtype), shape=border_shape(spec))


def _append(graph: ir.Graph, part: ir.Graph, prefix: str, known: dict[str, ir.Value]) -> None:
    made = {value.name: value for value in part.outputs}
    for value in part.inputs:
        if value.name not in known:
            raise CompileError(f"{graph.name}: {prefix} wants {value.name}, which is neither an input nor made by an earlier piece")
        value.replace_all_uses_with(known[str(value.name)], replace_graph_outputs=True)
    outputs = {name: (known[str(name)] if value.is_graph_input() else value) for name, value in made.items()}
    part.outputs.clear()
    initializers = list(part.initializers.values())
    part.initializers.clear()
    nodes = list(part)
    part.remove(nodes)
    for value in initializers:
        value.name = f"{prefix}/{value.name}"
        graph.register_initializer(value)
    for node in nodes:
        node.name = f"{prefix}/{node.name}"
        for value in node.outputs:
            value.name = f"{prefix}/{value.name}"
    graph.extend(nodes)
    known.update({str(name): value for name, value in outputs.items()})
