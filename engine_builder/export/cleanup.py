"""What is put right in every exported graph: a torch bug, names of axes, and left-overs."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from onnxscript.rewriter import onnx_fusions

from diffusion_api.engine_manifest import TensorSpec
from engine_builder.families.base import GraphModule

_BATCH = "batch"


def simplify(model: ir.Model) -> None:
    """Fold constants and drop what they make needless.

    The passes of `ONNXProgram.optimize` without its rewrite rules: matching them takes longer than all else together (half of a text
    encoder's export), and the runtimes fuse by themselves.
    """
    common.InlinePass()(model)
    share_lengths(model)
    passes = ir.passes.Sequential(
        FoldConstantsPass(shape_inference=False, input_size_limit=1 << 13, output_size_limit=1 << 18),
        common.RemoveUnusedNodesPass(),
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(size_limit=256),  # Shapes and axes, never weights.
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.NameFixPass(),
    )
    passes(model)
    onnx_fusions.fuse(model)  # RMSNormalization, which FP16 needs as one operator.


def share_lengths(model: ir.Model) -> None:
    """Read each length from the first value that has it: blocks then share the shapes that they make of it, as one operator each."""
    known: dict[str, tuple[ir.Value, int]] = {}
    for value in model.graph.inputs:
        for axis, length in enumerate(value.shape or ()):
            known.setdefault(str(length), (value, axis))
    for node in model.graph:
        value, start, end = node.inputs[0] if node.inputs else None, node.attributes.get("start"), node.attributes.get("end")
        if node.op_type != "Shape" or value is None or value.shape is None or start is None or end is None:
            continue
        axis = start.as_int()
        length = value.shape[axis] if 0 <= axis < len(value.shape) else None
        if end.as_int() != axis + 1 or not isinstance(length, ir.SymbolicDim) or length.value is None:
            continue
        first, axis = known.setdefault(str(length), (value, axis))
        node.replace_input_with(0, first)
        node.attributes["start"], node.attributes["end"] = ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)


def drop_empty_squeezes(model: ir.Model) -> int:
    """Turn a Squeeze of an axis that is not 1 long into nothing, as torch's `squeeze` means it; returns how many there were.

    torch 2.15's exporter writes an invalid ONNX Squeeze there; LTX-2's blocks do it 20 times.
    """
    dropped = 0
    for node in list(model.graph):
        if node.op_type != "Squeeze" or len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
            continue
        axes, shape = ir.convenience.get_const_tensor(node.inputs[1]), node.inputs[0].shape
        if axes is None or shape is None:
            continue
        if any(isinstance(shape[int(axis)], int) and shape[int(axis)] != 1 for axis in axes.numpy().reshape(-1)):
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            dropped += 1
    return dropped


def name_axes(model: ir.Model, graph: GraphModule) -> None:
    """Give inputs and outputs the axes' names of the piece, and forget the shapes in between, which runtimes infer themselves."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
            if value.dtype is None:
                value.type = None
    for values, specs in ((model.graph.inputs, graph.inputs), (model.graph.outputs, graph.outputs)):
        for value, spec in zip(values, specs, strict=True):
            value.name, value.shape = spec.name, border_shape(spec)


def border_shape(spec: TensorSpec) -> ir.Shape:
    """Return a piece's shape with its batch axis."""
    return ir.Shape([_BATCH, *spec.dims])


def tidy(model: ir.Model) -> None:
    """Remove what nothing reads, and metadata that names files of the machine that exported it."""
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
