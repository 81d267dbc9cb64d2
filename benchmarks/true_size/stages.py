"""The builder's stages at true size: each runs in a process of its own and hands the next one files alone, as builds on a cluster do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.true_size.checkpoint import write_checkpoint
from benchmarks.true_size.sizes import PIECES, Bench, ModelSize
from diffusion_api.accelerator import Accelerator, Compiler
from diffusion_api.engine_manifest import TensorSpec
from diffusion_api.model_spec import Sampling, Shape
from diffusion_api.recipe import Precision
from engine_builder.compilers import CompileRequest, compiler_for, profile_of
from engine_builder.evaluation.samples import Sample
from engine_builder.export import ExportedGraph, compose, export_graph
from engine_builder.families.base import GraphModule
from engine_builder.quantization import restore_quantized
from engine_builder.workflow.compilation import TRACED_SHAPE, TRANSFORMER, TRANSFORMER_PIECES, cast_weights
from engine_builder.workflow.simulation import Simulation

ACCELERATOR = Accelerator(product="NVIDIA-GeForce-RTX-5090", compiler=Compiler.TENSORRT_RTX)
Facts = dict[str, Any]


def write_model(folder: str, size: Mapping[str, Any]) -> Facts:
    """Write the random checkpoint, where there is none yet."""
    target = write_checkpoint(ModelSize(**size), Path(folder))
    return {"checkpoint": str(target), "bytes": _bytes_in(target)}


def quantize(bench: Bench, component: str) -> Facts:
    """Load the model, calibrate and quantize a component on a trajectory of few tokens, and keep its scales."""
    started = time.monotonic()
    family, folder = bench.family(), Path(bench.checkpoint)
    sampling = Sampling(max_sequence_length=bench.calibration_text_tokens, steps=bench.calibration_steps)
    shape = Shape(width=bench.calibration_side, height=bench.calibration_side)
    manifest = family.manifest(folder, sampling, [shape], 1)
    simulation = Simulation(family, family.load(folder, torch.bfloat16), manifest)
    loaded = time.monotonic() - started
    summary = simulation.quantize({component: bench.recipe}, [Sample("a red digit five", 1)])[component]
    file = bench.quantized(component)
    file.parent.mkdir(parents=True, exist_ok=True)
    simulation.save({component: bench.recipe}, file.parent)
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
    return {"load_seconds": round(loaded, 1), "bytes": _bytes_in(target), "quantizers": sum(each.quantizers for each in exported)}


def compile_piece(bench: Bench, component: str) -> Facts:
    """Compile what a component serves."""
    name = PIECES[component]
    graphs = bench.graphs(component)
    inputs, outputs = (
        tuple(TensorSpec.model_validate(spec) for spec in side) for side in json.loads((graphs / "graphs.json").read_text())[name]
    )
    manifest = bench.manifest()
    profile = profile_of([plan.dims for plan in manifest.shapes], manifest.max_batch_size)
    target = bench.folder / "engine" / name
    target.mkdir(parents=True)
    compiler = compiler_for(ACCELERATOR)
    compiler.check(ACCELERATOR, [bench.recipe.format])
    compiled = compiler.compile(CompileRequest(name, graphs / f"{name}.onnx", inputs, outputs, profile, Precision.BF16), target)
    return {"bytes": compiled.size_bytes, "layers": compiled.layers, "warnings": list(compiled.warnings)}


def _composed(
    graphs: Sequence[GraphModule], exported: Sequence[ExportedGraph], folder: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    assert tuple(graph.name for graph in graphs) == TRANSFORMER_PIECES
    made = {spec.name for graph in graphs for spec in graph.outputs}
    inputs = tuple({spec.name: spec for graph in graphs for spec in graph.inputs if spec.name not in made}.values())
    compose(TRANSFORMER, exported, folder / f"{TRANSFORMER}.onnx", inputs=inputs, outputs=graphs[-1].outputs)
    return inputs, graphs[-1].outputs


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
