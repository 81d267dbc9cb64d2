from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from diffusion_api.engine_manifest import Dtype, TensorSpec
from engine_builder.errors import CompileError
from engine_builder.export import check_parity, compose, example_inputs, export_graph, exporter
from engine_builder.families.base import GraphModule
from tests.builder.export.conftest import TRACED, WIDTH, Case, block_graph

ExportCase = Callable[..., Case]


def second_block() -> GraphModule:
    """Takes `y` of the first block and again its `shift`."""
    graph = block_graph()
    graph.module.up.weight.mul_(-1)  # type: ignore[operator, union-attr]  # It is a matrix.
    renamed = (TensorSpec(name="y", dtype=Dtype.FP32, dims=("tokens", WIDTH)), graph.inputs[1])
    return replace(graph, name="second", inputs=renamed, outputs=(TensorSpec(name="z", dtype=Dtype.FP32, dims=("tokens", WIDTH)),))


def run(path: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.mark.parametrize("limit", [1 << 30, 1 << 10], ids=["weights in the file", "weights beside it"])
def test_composed_pieces_compute_one_after_the_other(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "INLINE_LIMIT_BYTES", limit)
    first, second = block_graph(), second_block()
    pieces = [export_graph(graph, tmp_path / f"{graph.name}.onnx", example=TRACED) for graph in (first, second)]
    whole = compose("whole", pieces, tmp_path / "whole.onnx", inputs=first.inputs, outputs=second.outputs)
    inputs = example_inputs(first, {"tokens": 5}, 3)
    with torch.no_grad():
        expected = second.module(first.module(*inputs.values()), inputs["shift"]).numpy()
    assert np.allclose(run(whole.path, inputs), expected, atol=1e-5)
    if limit < 1 << 20:
        assert {path.name for path in whole.data} == {"block.onnx.data", "second.onnx.data"}
        assert whole.path.stat().st_size < 40_000


def test_a_tensor_from_nowhere_is_named(tmp_path: Path) -> None:
    second = second_block()
    piece = export_graph(second, tmp_path / "second.onnx", example=TRACED)
    with pytest.raises(CompileError, match="second wants y"):
        compose("whole", [piece], tmp_path / "whole.onnx", inputs=second.inputs[1:], outputs=second.outputs)


def test_a_graph_that_computes_something_else_is_refused_by_name(export_case: ExportCase) -> None:
    case = export_case("none")
    other = replace(case.graph, module=second_block().module)
    with pytest.raises(CompileError, match="block: the exported graph is"):
        check_parity(case.exported, other, [example_inputs(case.graph, TRACED, 2)])
