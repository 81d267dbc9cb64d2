from __future__ import annotations

import mmap
import sys
import threading
from types import SimpleNamespace

import pytest

from diffusion_api.engine_manifest import Executor, Piece
from engine_runtime.errors import EngineFilesError, PieceError
from engine_runtime.executors import load_runner, tensorrt
from engine_runtime.executors.tensorrt_library import Library


def piece(executor: Executor) -> Piece:
    return Piece(name="transformer", executor=executor, file="model.bin", inputs=(), outputs=())


def test_an_empty_plan_is_named(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(EngineFilesError, match=r"piece transformer: .*model.bin is empty"):
        load_runner(tmp_path, piece(Executor.TENSORRT))


@pytest.mark.parametrize("executor", [Executor.OPENVINO, Executor.TENSORRT])
def test_a_missing_file_is_named(executor, tmp_path):
    with pytest.raises(EngineFilesError, match=r"piece transformer: .*model.bin does not exist; build the engine again"):
        load_runner(tmp_path, piece(executor))


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install diffusion-operator\[cpu\]"):
        load_runner(tmp_path, piece(Executor.OPENVINO))


def plan(**options: str) -> Piece:
    return piece(Executor.TENSORRT).model_copy(update={"options": {"computeCapability": "12.0", **options}})


@pytest.mark.parametrize(("options", "name"), [({}, "TensorRT"), ({"library": "tensorrt_rtx"}, "TensorRT-RTX")])
def test_a_plan_on_a_machine_without_a_gpu_says_which_gpu_it_wants(tmp_path, monkeypatch, options, name):
    (tmp_path / "model.bin").write_bytes(b"plan")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    with pytest.raises(PieceError, match=rf"transformer is a {name} plan for compute capability 12\.0, and this machine has no GPU"):
        load_runner(tmp_path, plan(**options))


def test_a_plan_without_torch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.bin").write_bytes(b"plan")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torch"):
        load_runner(tmp_path, plan())


@pytest.mark.parametrize(("options", "library"), [({}, "tensorrt"), ({"library": "tensorrt_rtx"}, "tensorrt_rtx")])
def test_a_plan_is_mapped_by_the_library_that_compiled_it(tmp_path, monkeypatch, options, library):
    (tmp_path / "model.bin").write_bytes(b"plan")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    read: list[tuple[str, bytes]] = []

    class NeedsGpuError(Exception):
        pass

    def runtime(name: str) -> SimpleNamespace:
        def deserialize_cuda_engine(content: mmap.mmap) -> None:
            assert isinstance(content, mmap.mmap)  # Not in memory as a whole: it has the size of the weights.
            read.append((name, content[:]))
            raise NeedsGpuError

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)

    def load(name: str) -> Library:
        return Library(SimpleNamespace(Runtime=lambda _: runtime(name)), SimpleNamespace(messages=None), threading.Lock())

    monkeypatch.setattr(tensorrt, "load_library", load)
    with pytest.raises(NeedsGpuError):
        load_runner(tmp_path, plan(**options))
    assert read == [(library, b"plan")]


def test_an_executor_that_nothing_runs_is_refused(tmp_path):
    with pytest.raises(EngineFilesError, match="nothing here runs OnnxRuntime"):
        load_runner(tmp_path, piece(Executor.ONNX_RUNTIME))
