"""How a TensorRT piece shares the GPU with torch: a stand-in for both writes down the order of what is asked of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from engine_runtime.executors import TensorRtRunner, tensorrt
from engine_runtime.executors.tensorrt_library import Library

BORDER = {"dtype": Dtype.FP32, "dims": (4,)}


class FakeTensor:
    """A tensor on the GPU; asking for it on the host is what must not happen."""

    dtype = "torch.float32"

    def __init__(self, shape: tuple[int, ...], log: list[str]) -> None:
        self.shape = shape
        self._log = log

    def to(self, device: str) -> FakeTensor:
        self._log.append(f"to {device}")
        return self

    def contiguous(self) -> FakeTensor:
        return self

    def data_ptr(self) -> int:
        return 1


class FakeStream:
    cuda_stream = 7

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def wait_stream(self, other: FakeStream) -> None:
        self._log.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self._log.append(f"the host waits for {self.name}")


class FakeContext:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None: ...

    def set_tensor_address(self, name: str, address: int) -> None: ...

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (2, 4)

    def execute_async_v3(self, stream: int) -> bool:
        self._log.append("runs")
        return True


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def runner(log: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch) -> TensorRtRunner:
    @contextmanager
    def stream(_: FakeStream) -> Iterator[None]:
        yield

    cuda = SimpleNamespace(
        is_available=lambda: True,
        Stream=lambda: FakeStream("the plan's stream", log),
        current_stream=lambda: FakeStream("the caller's stream", log),
        stream=stream,
    )

    def tensor(shape: tuple[int, ...], **_: Any) -> FakeTensor:
        return FakeTensor(shape, log)

    torch = SimpleNamespace(cuda=cuda, float32="float32", empty=tensor, from_numpy=lambda array: tensor(array.shape))
    engine = SimpleNamespace(create_execution_context=lambda: FakeContext(log))
    module = SimpleNamespace(Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=lambda _: engine))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(tensorrt, "load_library", lambda _: Library(module, SimpleNamespace(messages=None), threading.Lock()))
    (tmp_path / "model.plan").write_bytes(b"plan")
    inputs, outputs = (TensorSpec(name="x", **BORDER),), (TensorSpec(name="y", **BORDER),)
    return TensorRtRunner(tmp_path, Piece(name="body", executor=Executor.TENSORRT, file="model.plan", inputs=inputs, outputs=outputs))


def test_a_plan_runs_after_what_made_its_inputs_and_is_done_before_anyone_reads_its_outputs(runner, log):
    runner({"x": FakeTensor((2, 4), log)})
    assert log == ["the plan's stream waits for the caller's stream", "to cuda", "runs", "the host waits for the plan's stream"]


@pytest.mark.parametrize("in_numpy", [True, False])
def test_outputs_stay_on_the_gpu_whatever_the_inputs_are(runner, log, in_numpy):
    outputs = runner({"x": np.zeros((2, 4), np.float32) if in_numpy else FakeTensor((2, 4), log)})
    assert isinstance(outputs["y"], FakeTensor)
