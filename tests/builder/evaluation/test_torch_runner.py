from __future__ import annotations

import numpy as np
import torch

from diffusion_api.engine_manifest import Dtype, TensorSpec
from engine_builder.evaluation.torch_runner import TorchRunner, torch_runners
from engine_builder.families.base import GraphModule


class Mix(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.linear(x.to(self.linear.weight.dtype)) + ids.sum(dim=1, keepdim=True)
        return y, y.clamp(0, 255).to(torch.uint8)


def graph(dtype: torch.dtype) -> GraphModule:
    torch.manual_seed(0)
    inputs = (TensorSpec(name="x", dtype=Dtype.FP32, dims=(4,)), TensorSpec(name="ids", dtype=Dtype.INT64, dims=("tokens",)))
    outputs = (TensorSpec(name="y", dtype=Dtype.FP32, dims=(2,)), TensorSpec(name="image", dtype=Dtype.UINT8, dims=(2,)))
    return GraphModule("mix", "transformer", Mix().to(dtype), inputs, outputs)


def test_borders_keep_their_types_whatever_the_type_of_the_layers() -> None:
    inputs = {"x": torch.ones(3, 4).double(), "ids": np.arange(6, dtype=np.int32).reshape(3, 2), "unused": np.zeros(3)}
    full, half = (TorchRunner(graph(dtype))(inputs) for dtype in (torch.float32, torch.bfloat16))
    assert half["y"].dtype == np.float32
    assert half["image"].dtype == np.uint8
    np.testing.assert_allclose(half["y"], full["y"], rtol=0.02, atol=0.02)


def test_runners_are_named_after_their_pieces() -> None:
    assert list(torch_runners((graph(torch.float32),))) == ["mix"]


def test_on_a_gpu_what_pieces_hand_to_each_other_stays_there() -> None:
    """Played by a CPU: tensors come out, of the very numbers, and a tensor that goes in is not copied."""
    runner, host = TorchRunner(graph(torch.float32), in_torch=True), TorchRunner(graph(torch.float32))
    inputs = {"x": torch.ones(3, 4), "ids": np.arange(6).reshape(3, 2)}
    outputs, expected = runner(inputs), host(inputs)
    assert all(isinstance(output, torch.Tensor) for output in outputs.values())
    assert all(isinstance(output, np.ndarray) for output in expected.values())
    for name, output in outputs.items():
        np.testing.assert_array_equal(output.numpy(), expected[name])
    assert runner._tensor(inputs["x"], Dtype.FP32).data_ptr() == inputs["x"].data_ptr()
