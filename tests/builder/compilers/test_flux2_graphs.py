"""The transformer of the digits model, cut to one block of each kind: exported in every format, then compiled by NVIDIA's compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_api.optimization import QuantizationAlgorithm as Algorithm
from diffusion_api.optimization import QuantizationFormat as Format
from diffusion_api.optimization import ScaleMode as Mode
from diffusion_api.recipe import ComponentRecipe, Precision
from engine_builder.compilers import AxisRange, CompileRequest, ShapeProfile, compiler_for
from engine_builder.compilers import openvino as openvino_compiler
from engine_builder.export import ExportedGraph, example_inputs, export_graph
from engine_builder.families.base import GraphModule
from engine_builder.families.registry import family_for
from engine_builder.quantization import quantize
from engine_runtime.executors import load_runner
from tests.support.processor import has_vnni

from .conftest import ADA, BLACKWELL, CPU

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits-klein"
TRACED = {"image_tokens": 6, "text_tokens": 5, "tokens": 11}
SIZES = ShapeProfile(
    batch=AxisRange(1, 1, 4),
    axes={"image_tokens": AxisRange(16, 64, 256), "text_tokens": AxisRange(16, 16, 16), "tokens": AxisRange(32, 80, 272)},
)
RECIPES = {
    "FP32": ComponentRecipe(),
    "INT8": ComponentRecipe(format=Format.INT8, mode=Mode.STATIC, algorithm=Algorithm.SMOOTH_QUANT),
    "FP8": ComponentRecipe(format=Format.FP8, mode=Mode.STATIC, algorithm=Algorithm.MAX),
    "MXFP8": ComponentRecipe(format=Format.MXFP8, mode=Mode.DYNAMIC, algorithm=Algorithm.MAX),
    "NVFP4 SVDQuant": ComponentRecipe(format=Format.NVFP4, mode=Mode.STATIC, algorithm=Algorithm.SVD_QUANT),
}

Bodies = Callable[[str, torch.dtype], tuple[GraphModule, ExportedGraph]]


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Bodies:
    """Return a maker of the body and its exported graph; each is made once."""
    known: dict[tuple[str, torch.dtype], tuple[GraphModule, ExportedGraph]] = {}

    def make(recipe: str, dtype: torch.dtype) -> tuple[GraphModule, ExportedGraph]:
        if (recipe, dtype) not in known:
            body = _body(RECIPES[recipe], dtype)
            known[recipe, dtype] = body, export_graph(body, tmp_path_factory.mktemp("onnx") / "body.onnx", example=TRACED)
        return known[recipe, dtype]

    return make


def _body(recipe: ComponentRecipe, dtype: torch.dtype) -> GraphModule:
    family = family_for(DIGITS)
    model = family.load(DIGITS, dtype)
    transformer = model.components["transformer"]
    transformer.transformer_blocks = transformer.transformer_blocks[:1]
    transformer.single_transformer_blocks = transformer.single_transformer_blocks[:1]
    body = next(graph for graph in family.graphs(model) if graph.name == "transformer_body")
    inputs = example_inputs(body, {"image_tokens": 64, "text_tokens": 16, "tokens": 80}, 2)
    quantize(transformer, recipe, calibrate=lambda _: body.module(*inputs.values()), exclude=family.sensitive_layers("transformer"))
    return body


def request_of(body: GraphModule, exported: ExportedGraph, precision: Precision) -> CompileRequest:
    return CompileRequest(body.name, exported.path, body.inputs, body.outputs, SIZES, precision)


@pytest.mark.parametrize("recipe", ["INT8", "FP8"])
def test_ada_and_blackwell_plans_are_built(recipe: str, bodies: Bodies, tmp_path: Path) -> None:
    for accelerator in (ADA, BLACKWELL):
        compiler = compiler_for(accelerator)
        compiler.check(accelerator, [RECIPES[recipe].format])
        compiled = compiler.compile(request_of(*bodies(recipe, torch.bfloat16), Precision.BF16), tmp_path)
        assert compiled.layers > 100


@pytest.mark.parametrize("recipe", ["MXFP8", "NVFP4 SVDQuant"])
def test_blackwell_plans_of_block_formats_are_built(recipe: str, bodies: Bodies, tmp_path: Path) -> None:
    compiler = compiler_for(BLACKWELL)
    compiler.check(BLACKWELL, [RECIPES[recipe].format])
    compiled = compiler.compile(request_of(*bodies(recipe, torch.bfloat16), Precision.BF16), tmp_path)
    assert compiled.layers > 100


# Without VNNI large INT8 products saturate: the engine's own quality gate says whether a picture bears it.
@pytest.mark.parametrize(("recipe", "tolerance"), [("FP32", 1e-5), ("INT8", 2e-3 if has_vnni() else 0.2)])
def test_openvino_computes_what_torch_does(recipe: str, tolerance: float, bodies: Bodies, tmp_path: Path) -> None:
    body, exported = bodies(recipe, torch.float32)
    compiled = compiler_for(CPU).compile(request_of(body, exported, Precision.FP32), tmp_path)
    runner = load_runner(compiled.folder, compiled.piece)
    for batch, tokens in ((1, 64), (3, 16)):
        inputs = example_inputs(body, {"image_tokens": tokens, "text_tokens": 16, "tokens": 16 + tokens}, batch)
        with torch.no_grad():
            expected = body.module(*inputs.values()).numpy()
        actual = runner({name: tensor.numpy() for name, tensor in inputs.items()})["y"]
        assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("recipe", ["FP32", "INT8"])
def test_every_rotary_embedding_of_an_exported_graph_is_rewritten(
    recipe: str, bodies: Bodies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries and keys of every block are rotated once; a rewrite that no longer finds them costs a quarter of the speed and no error."""
    rewritten = []
    rewrite = openvino_compiler.rewrite_rotary
    monkeypatch.setattr(openvino_compiler, "rewrite_rotary", lambda model: rewritten.append(rewrite(model)))
    body, exported = bodies(recipe, torch.float32)
    compiler_for(CPU).compile(request_of(body, exported, Precision.FP32), tmp_path)
    blocks = sum(type(module).__name__ in ("Flux2TransformerBlock", "Flux2SingleTransformerBlock") for module in body.module.modules())
    assert blocks == 2
    assert rewritten == [2 * blocks]
