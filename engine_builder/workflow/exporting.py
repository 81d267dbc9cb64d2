"""The work of the `export` stage: writes a component's pieces as ONNX and compares them with torch. It takes seconds to import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusion_api.engine_manifest import TensorSpec
from diffusion_api.model_spec import Shape
from diffusion_api.recipe import Precision
from engine_builder.export import ExportedGraph, TracedGraph, check_parity, compose, example_inputs, trace_graph
from engine_builder.export.parity import Inputs
from engine_builder.families.base import GraphModule
from engine_builder.workflow.compilation import TRANSFORMER, TRANSFORMER_PIECES
from engine_builder.workflow.context import BuildContext

TRACED_SHAPE = Shape(width=96, height=80)
"""Traced at odd lengths, so that no axis is taken for a constant or for another axis."""
PARITY_PIXELS = 2**18
"""Pixels of the largest picture that parity is measured on. The VAE's attention has one head, whose matrix grows with the square of the
pixels: 34 GB for two pictures of 2048x2048."""
PARITY_BATCH = 2
PARITY_STEP = 64
"""Sides of a size made smaller are multiples of it, which every architecture takes."""
PARITY_LIMIT_BYTES = 2 * 2**30
"""Above this a second runtime's copy of the weights does not fit beside torch's."""
TWIN_LIMIT_BYTES = 2**28
TORCH_PRECISIONS = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}


def export_component(
    context: BuildContext, graphs: Sequence[GraphModule], folder: Path, *, emulate: bool, precision: Precision
) -> list[dict[str, object]]:
    """Write a component's graphs, for the transformer also their composition, and return what `graphs.json` says of each.

    Args:
        context: The build.
        graphs: All pieces of one component; cast in place.
        folder: Gets the files.
        emulate: Write what the accelerator has no kernels for as plain arithmetic.
        precision: Type of what is not quantized.
    """
    checked = parity_shape(context.job.shapes[0])
    folders = (context.checkpoint.folder, context.job.model.sampling)
    example, largest = (plan.dims for plan in context.family.manifest(*folders, [TRACED_SHAPE, checked], PARITY_BATCH).shapes)
    shapes = [(example, 1), (largest, PARITY_BATCH)]
    exported = []
    for graph in graphs:
        graph.module.to("cpu")  # The exporter's example inputs and constants are there.
        inputs = [example_inputs(graph, axes, batch) for axes, batch in shapes]
        cast_weights(graph, TORCH_PRECISIONS[precision])
        traced = trace_graph(graph, example)
        done = traced.write(folder / f"{graph.name}.onnx", emulate=emulate)
        error = None
        if precision is Precision.BF16:
            error = _parity_of_twin(traced, inputs, folder / "twin.onnx")
        elif done.portable and precision is Precision.FP32 and done.size_bytes < PARITY_LIMIT_BYTES:
            error = check_parity(done, graph, inputs)
        exported.append((done.with_error(error), graph.inputs, graph.outputs))
    if [graph.name for graph in graphs] == list(TRANSFORMER_PIECES):
        exported.append(_composed(graphs, [done for done, _, _ in exported], folder))
    return [
        {
            "name": done.name,
            "inputs": [spec.to_wire() for spec in inputs],
            "outputs": [spec.to_wire() for spec in outputs],
            "bytes": done.size_bytes,
            "relativeError": done.relative_error,
            "paritySize": "" if done.relative_error is None else checked.name,
        }
        for done, inputs, outputs in exported
    ]


def parity_shape(shape: Shape) -> Shape:
    """Return an output size of about the same form that is small enough to compute a piece at, twice, on a CPU."""
    pixels = shape.width * shape.height * (shape.frames or 1)
    if pixels <= PARITY_PIXELS:
        return shape
    scale = math.sqrt(PARITY_PIXELS / pixels)
    width, height = (max(int(side * scale) // PARITY_STEP, 1) * PARITY_STEP for side in (shape.width, shape.height))
    return shape.model_copy(update={"width": width, "height": height})


def _composed(
    graphs: Sequence[GraphModule], exported: Sequence[ExportedGraph], folder: Path
) -> tuple[ExportedGraph, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Join the transformer's pieces: its inputs are those that no piece makes, its outputs the head's."""
    made = {spec.name for graph in graphs for spec in graph.outputs}
    inputs = tuple({spec.name: spec for graph in graphs for spec in graph.inputs if spec.name not in made}.values())
    joined = compose(TRANSFORMER, exported, folder / f"{TRANSFORMER}.onnx", inputs=inputs, outputs=graphs[-1].outputs)
    errors = [done.relative_error for done in exported if done.relative_error is not None]
    return joined.with_error(max(errors, default=None)), inputs, graphs[-1].outputs


def _parity_of_twin(traced: TracedGraph, inputs: Sequence[Inputs], path: Path) -> float | None:
    """Measure parity of the same operators in FP32, for nothing here runs BF16 or block formats; None where it is too large to write twice.

    The piece's weights are FP32 afterwards.
    """
    graph = traced.graph
    if sum(parameter.numel() for parameter in graph.module.parameters()) * 4 > TWIN_LIMIT_BYTES:
        return None
    twin = traced.widened().write(path, emulate=True)
    cast_weights(graph, torch.float32)
    error = check_parity(twin, graph, inputs)
    for file in (twin.path, *twin.data):
        file.unlink()
    return error


def cast_weights(graph: GraphModule, dtype: torch.dtype) -> None:
    """Cast a piece's parameters; scales and statistics, which are buffers, keep FP32."""
    for parameter in graph.module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
