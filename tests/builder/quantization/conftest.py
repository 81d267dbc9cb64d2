"""A network small enough to quantize in every test, with one layer of each kind that needs thought."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from diffusion_api.optimization import QuantizationAlgorithm, QuantizationFormat, ScaleMode
from diffusion_api.recipe import ComponentRecipe

WIDTH = 64
RECIPES = (
    ComponentRecipe(format=QuantizationFormat.INT8, mode=ScaleMode.STATIC),
    ComponentRecipe(format=QuantizationFormat.INT8, mode=ScaleMode.STATIC, algorithm=QuantizationAlgorithm.SMOOTH_QUANT),
    ComponentRecipe(format=QuantizationFormat.FP8, mode=ScaleMode.STATIC),
    ComponentRecipe(format=QuantizationFormat.FP8, mode=ScaleMode.DYNAMIC),
    ComponentRecipe(format=QuantizationFormat.MXFP8, mode=ScaleMode.DYNAMIC),
    ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.STATIC),
    ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.DYNAMIC),
    ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.STATIC, algorithm=QuantizationAlgorithm.AWQ),
    ComponentRecipe(format=QuantizationFormat.NVFP4, mode=ScaleMode.STATIC, algorithm=QuantizationAlgorithm.SVD_QUANT),
)


class Network(nn.Module):
    """Two matrices, one that no block size divides, one that is excluded by name, and one that no input reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_in = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        self.odd = nn.Linear(WIDTH + 4, WIDTH)
        self.unused = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm_in(x)
        h = h + self.down(nn.functional.gelu(self.up(h)))
        return self.odd(nn.functional.pad(h, (0, 4)))


def inputs(seed: int = 0) -> torch.Tensor:
    """Activations with outlier channels, [4, 10, WIDTH]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 10, WIDTH, generator=generator) * torch.linspace(0.2, 4, WIDTH)


def calibrate(network: nn.Module) -> None:
    """Run the network on fixed inputs."""
    with torch.no_grad():
        network(inputs())


@pytest.fixture
def make_network() -> Callable[[], Network]:
    """Return a maker of networks with equal weights."""

    def make() -> Network:
        torch.manual_seed(0)
        return Network().eval().requires_grad_(False)

    return make
