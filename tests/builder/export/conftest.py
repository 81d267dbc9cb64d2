"""One small piece with matrices, attention and a convolution-free body, exported once for each format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.optimization import QuantizationAlgorithm, QuantizationFormat, ScaleMode
from diffusion_api.recipe import ComponentRecipe
from engine_builder.export import ExportedGraph, export_graph
from engine_builder.families.base import GraphModule
from engine_builder.quantization import quantize

WIDTH = 64
TRACED = {"tokens": 6}
RECIPES = {
    "none": ComponentRecipe(),
    "int8": ComponentRecipe(format=QuantizationFormat.INT8, mode=ScaleMode.STATIC),
    "fp8": ComponentRecipe(format=QuantizationFormat.FP8, mode=ScaleMode.STATIC),
    "fp8-dynamic": ComponentRecipe(format=QuantizationFormat.FP8, mode=ScaleMode.DYNAMIC),
    "mxfp8": ComponentRecipe(format=QuantizationFormat.MXFP8, mode=ScaleMode.DYNAMIC),
    "nvfp4": ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.STATIC),
    "svdquant": ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.STATIC, algorithm=QuantizationAlgorithm.SVD_QUANT),
}
BLOCK_FORMATS = ("mxfp8", "nvfp4", "svdquant")


class Block(nn.Module):
    """A modulated feed-forward block; FP32 at its borders, whatever its layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        dtype = self.up.weight.dtype
        h = x.to(dtype)
        h = h + self.down(nn.functional.gelu(self.up(self.norm(h) + shift.to(dtype)[:, None])))
        return h.float()


def block_graph(dtype: torch.dtype = torch.float32) -> GraphModule:
    """Return the piece: x [B, tokens, WIDTH], shift [B, WIDTH] → y."""
    torch.manual_seed(0)
    tokens = ("tokens", WIDTH)
    return GraphModule(
        name="block",
        component="transformer",
        module=Block().eval().requires_grad_(False).to(dtype),
        inputs=(TensorSpec(name="x", dtype=Dtype.FP32, dims=tokens), TensorSpec(name="shift", dtype=Dtype.FP32, dims=(WIDTH,))),
        outputs=(TensorSpec(name="y", dtype=Dtype.FP32, dims=tokens),),
    )


def calibrate(module: nn.Module) -> None:
    """Run the block on fixed inputs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        module(torch.randn(4, 9, WIDTH, generator=generator), torch.randn(4, WIDTH, generator=generator))


@dataclass(frozen=True)
class Case:
    """A piece and its file."""

    graph: GraphModule
    exported: ExportedGraph


@pytest.fixture(scope="session")
def export_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """Return a function that quantizes and exports the block, once for each format, precision and form."""
    cases: dict[tuple[str, bool, torch.dtype], Case] = {}

    def case(format: str, *, emulate: bool = False, dtype: torch.dtype = torch.float32) -> Case:
        key = (format, emulate, dtype)
        if key not in cases:
            graph = block_graph(dtype)
            quantize(graph.module, RECIPES[format], calibrate=calibrate, exclude=[])
            folder: Path = tmp_path_factory.mktemp("onnx")
            cases[key] = Case(graph, export_graph(graph, folder / f"{format}.onnx", example=TRACED, emulate=emulate))
        return cases[key]

    return case
