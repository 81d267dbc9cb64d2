"""The Python model of a piece, with a stand-in for what Triton gives it: batches are joined and split, and stay where they lie."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from engine_runtime.errors import PieceError
from engine_runtime.pieces import Array

X = TensorSpec(name="x", dtype=Dtype.FP32, dims=(2,))
TIMESTEP = TensorSpec(name="timestep", dtype=Dtype.FP32, dims=())
Y = TensorSpec(name="y", dtype=Dtype.FP32, dims=(2,))
PIECE = Piece(name="transformer", executor=Executor.TENSORRT, file="model.plan", inputs=(X, TIMESTEP), outputs=(Y,))


class OnGpu:
    """As much of a torch tensor on a GPU as the model uses; torch itself takes seconds to import."""

    device = "cuda:0"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.ndim = rows, rows.shape, rows.ndim

    def __getitem__(self, rows: slice) -> OnGpu:
        return OnGpu(self.rows[rows])

    def to(self, device: str) -> OnGpu:
        assert device == self.device
        return self

    def contiguous(self) -> OnGpu:
        return self

    def reshape(self, *shape: int) -> OnGpu:
        return OnGpu(self.rows.reshape(*shape))


class Tensor:
    """Triton's tensor."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    @classmethod
    def from_dlpack(cls, name: str, value: OnGpu) -> Tensor:
        assert isinstance(value, OnGpu)
        return cls(name, value)

    def is_cpu(self) -> bool:
        return isinstance(self.value, np.ndarray)

    def as_numpy(self) -> np.ndarray:
        assert self.is_cpu(), "Triton copies nothing to the host by itself"
        return self.value


@pytest.fixture
def piece_model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, imported as in Triton, with a runner that adds the timestep."""
    triton = SimpleNamespace(
        Tensor=Tensor,
        InferenceRequest=object,
        InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error),
        TritonError=str,
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    torch = SimpleNamespace(cat=lambda arrays: OnGpu(np.concatenate([array.rows for array in arrays])), from_numpy=OnGpu)
    dlpack = SimpleNamespace(from_dlpack=lambda tensor: tensor.value)
    stand_ins = {"triton_python_backend_utils": triton, "torch": torch, "torch.utils": SimpleNamespace(dlpack=dlpack)}
    for name, module in {**stand_ins, "torch.utils.dlpack": dlpack}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("piece_model", "tensors"):
        monkeypatch.delitem(sys.modules, f"engine_runtime.triton.{name}", raising=False)
    module = importlib.import_module("engine_runtime.triton.piece_model")
    monkeypatch.setattr(module, "load_piece", lambda _: PIECE)
    return module


def answers(module: ModuleType, requests: list[dict[str, Any]], runner: Any) -> list[Any]:
    module.load_runner = lambda _folder, _piece: runner  # type: ignore[attr-defined]
    model = module.TritonPythonModel()
    model.initialize({"model_repository": "/models/transformer", "model_version": "1"})
    named = [{name: Tensor(name, value) for name, value in request.items()} for request in requests]
    found: list[Any] = model.execute(named)
    return found


def test_a_batch_is_joined_run_once_and_split(piece_model: ModuleType) -> None:
    batches: list[int] = []

    def runner(inputs: Mapping[str, Array]) -> dict[str, Array]:
        batches.append(len(inputs["x"]))
        return {"y": inputs["x"] + inputs["timestep"][:, None]}

    requests = [
        {"x": np.full((rows, 2), rows, np.float32), "timestep": np.full(rows, 0.5, np.float32)}  # One row, then two.
        for rows in (1, 2)
    ]
    first, second = answers(piece_model, requests, runner)
    assert batches == [3]
    np.testing.assert_array_equal(first.tensors[0].value, [[1.5, 1.5]])
    np.testing.assert_array_equal(second.tensors[0].value, [[2.5, 2.5], [2.5, 2.5]])


def test_what_lies_on_the_gpu_is_joined_there_with_a_neighbour_from_the_host_and_answered_there(piece_model: ModuleType) -> None:
    def runner(inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert isinstance(inputs["x"], OnGpu)
        return {"y": OnGpu(inputs["x"].rows * 2)}

    time = np.zeros(1, np.float32)
    requests = [{"x": np.ones((1, 2), np.float32), "timestep": time}, {"x": OnGpu(np.full((1, 2), 3, np.float32)), "timestep": time}]
    first, second = answers(piece_model, requests, runner)
    np.testing.assert_array_equal(first.tensors[0].value.rows, [[2, 2]])
    np.testing.assert_array_equal(second.tensors[0].value.rows, [[6, 6]])


def test_a_failed_run_is_the_answer_of_each_request(piece_model: ModuleType) -> None:
    def runner(_: Mapping[str, Array]) -> dict[str, Array]:
        raise PieceError("TensorRT did not run it")

    request = {"x": np.ones((1, 2), np.float32), "timestep": np.zeros(1, np.float32)}
    found = answers(piece_model, [request, request], runner)
    assert [answer.error for answer in found] == ["transformer: TensorRT did not run it"] * 2


def test_a_plan_that_this_machine_cannot_load_ends_the_start_with_why(piece_model: ModuleType, tmp_path: Path) -> None:
    def load(_folder: Path, piece: Piece) -> None:
        raise PieceError(f"piece {piece.name}: no GPU")

    piece_model.load_runner = load  # type: ignore[attr-defined]
    with pytest.raises(PieceError, match="piece transformer: no GPU"):
        piece_model.TritonPythonModel().initialize({"model_repository": str(tmp_path), "model_version": "1"})
