"""The stage that needs no torch: graphs to plans."""

from __future__ import annotations

import json

from benchmarks.true_size.sizes import PIECES, Bench, Facts
from diffusion_api.accelerator import Accelerator, Compiler
from diffusion_api.engine_manifest import TensorSpec
from diffusion_api.recipe import Precision
from engine_builder.compilers import CompileRequest, compiler_for, profile_of

ACCELERATOR = Accelerator(product="NVIDIA-GeForce-RTX-5090", compiler=Compiler.TENSORRT_RTX)


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
