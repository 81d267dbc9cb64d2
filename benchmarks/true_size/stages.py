"""The stages that need torch: each runs in a process of its own and hands the next one files alone, as builds on a cluster do."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.true_size.sizes import Bench, Facts, bytes_in
from diffusion_api.engine_manifest import TensorSpec
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.evaluation.samples import Sample
from engine_builder.export import ExportedGraph, compose, export_graph
from engine_builder.families.base import GraphModule
from engine_builder.quantization import restore_quantized
from engine_builder.workflow.compilation import TRANSFORMER, TRANSFORMER_PIECES
from engine_builder.workflow.exporting import TRACED_SHAPE, cast_weights
from engine_builder.workflow.simulation import Simulation


def quantize(bench: Bench, component: str) -> Facts:
    """Load the model, calibrate and quantize a component on a trajectory of few tokens, and keep its scales."""
    started = time.monotonic()
    family, folder = bench.family(), Path(bench.checkpoint)
    sampling = Sampling(max_sequence_length=bench.calibration_text_tokens, steps=bench.calibration_steps)
    shape = Shape(width=bench.calibration_side, height=bench.calibration_side)
    manifest = family.manifest(folder, sampling, [shape], 1)
    simulation = Simulation(family, family.load(folder, torch.bfloat16), manifest)
    loaded = time.monotonic() - started
    summary = simulation.quantize(component, bench.recipe, [Sample("a red digit five", 1)])
    file = bench.quantized(component)
    file.parent.mkdir(parents=True, exist_ok=True)
    simulation.save(component, bench.recipe, file.parent)
    return {
        "load_seconds": round(loaded, 1),
        "bytes": file.stat().st_size,
        "quantized": len(summary.quantized),
        "excluded": len(summary.excluded),
    }


def export(bench: Bench, component: str) -> Facts:
    """Load a component, restore its scales, and write its graphs."""
    started = time.monotonic()
    family, folder = bench.family(), Path(bench.checkpoint)
    model = family.load(folder, torch.bfloat16)
    loaded = time.monotonic() - started
    if bench.quantizes:
        restore_quantized(model.components[component], bench.quantized(component))
    graphs = [graph for graph in family.graphs(model) if graph.component == component]
    target = bench.graphs(component)
    example = family.manifest(folder, Sampling(max_sequence_length=bench.text_tokens), [TRACED_SHAPE], 2).shapes[0].dims
    exported = []
    for graph in graphs:
        cast_weights(graph, torch.bfloat16)
        exported.append(export_graph(graph, target / f"{graph.name}.onnx", example=example))
    specs = {graph.name: (graph.inputs, graph.outputs) for graph in graphs}
    if len(graphs) > 1:
        specs[TRANSFORMER] = _composed(graphs, exported, target)
    wire = {name: [[spec.to_wire() for spec in side] for side in sides] for name, sides in specs.items()}
    (target / "graphs.json").write_text(json.dumps(wire))
    return {"load_seconds": round(loaded, 1), "bytes": bytes_in(target), "quantizers": sum(each.quantizers for each in exported)}


def _composed(
    graphs: Sequence[GraphModule], exported: Sequence[ExportedGraph], folder: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    assert tuple(graph.name for graph in graphs) == TRANSFORMER_PIECES
    made = {spec.name for graph in graphs for spec in graph.outputs}
    inputs = tuple({spec.name: spec for graph in graphs for spec in graph.inputs if spec.name not in made}.values())
    compose(TRANSFORMER, exported, folder / f"{TRANSFORMER}.onnx", inputs=inputs, outputs=graphs[-1].outputs)
    return inputs, graphs[-1].outputs
