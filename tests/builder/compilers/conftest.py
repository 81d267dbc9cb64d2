"""Small graphs as the exporter writes them: FP32 at the borders, batch first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from diffusion_api.accelerator import Accelerator
from diffusion_api.accelerator import Compiler as CompilerName
from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.recipe import Precision
from engine_builder.compilers import CompileRequest, profile_of

WIDTH = 32
INPUTS = (
    TensorSpec(name="tokens", dtype=Dtype.FP32, dims=("image_tokens", WIDTH)),
    TensorSpec(name="shift", dtype=Dtype.FP32, dims=(WIDTH,)),
)
OUTPUTS = (TensorSpec(name="sample", dtype=Dtype.FP32, dims=("image_tokens", WIDTH)),)
WEIGHT = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)

CPU = Accelerator(product="CPU")
ADA = Accelerator(product="NVIDIA-L4", compiler=CompilerName.TENSORRT_RTX)
BLACKWELL = Accelerator(product="NVIDIA-GeForce-RTX-5090", compiler=CompilerName.TENSORRT_RTX)


def expected(tokens: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What the graph computes."""
    return np.maximum(tokens @ WEIGHT + shift[:, None], 0)


def linear_graph(operator: str = "Relu") -> onnx.ModelProto:
    """`sample = operator(tokens @ WEIGHT + shift)`."""
    tokens = helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", "image_tokens", WIDTH])
    shift = helper.make_tensor_value_info("shift", TensorProto.FLOAT, ["batch", WIDTH])
    sample = helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", "image_tokens", WIDTH])
    nodes = [
        helper.make_node("MatMul", ["tokens", "weight"], ["product"], name="multiply"),
        helper.make_node("Unsqueeze", ["shift", "axis"], ["row"], name="row"),
        helper.make_node("Add", ["product", "row"], ["sum"], name="add"),
        helper.make_node(operator, ["sum"], ["sample"], name="last"),
    ]
    weights = [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(np.array([1], np.int64), "axis")]
    graph = helper.make_graph(nodes, "linear", [tokens, shift], [sample], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., CompileRequest]:
    """Return a maker of requests for a graph."""

    def make(model: onnx.ModelProto | None = None, sizes: tuple[int, ...] = (16, 64), **changes: object) -> CompileRequest:
        file = tmp_path / "graph.onnx"
        onnx.save(model or linear_graph(), file)
        profile = profile_of([{"image_tokens": size} for size in sizes], max_batch_size=4)
        fields = {"name": "linear", "onnx": file, "inputs": INPUTS, "outputs": OUTPUTS, "profile": profile, "precision": Precision.FP32}
        return CompileRequest(**{**fields, **changes})  # type: ignore[arg-type]  # Keywords of the test.

    return make
