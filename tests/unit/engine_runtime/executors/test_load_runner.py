from __future__ import annotations

import sys

import pytest

from diffusion_api.engine_manifest import Executor, Piece
from engine_runtime.errors import EngineFilesError
from engine_runtime.executors import load_runner


def piece(executor: Executor) -> Piece:
    return Piece(name="transformer", executor=executor, file="model.bin", inputs=(), outputs=())


@pytest.mark.parametrize("executor", [Executor.OPENVINO, Executor.TENSORRT])
def test_a_missing_file_is_named(executor, tmp_path):
    with pytest.raises(EngineFilesError, match=r"piece transformer: .*model.bin does not exist; build the engine again"):
        load_runner(tmp_path, piece(executor))


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install diffusion-operator\[cpu\]"):
        load_runner(tmp_path, piece(Executor.OPENVINO))


def test_an_executor_that_nothing_runs_is_refused(tmp_path):
    with pytest.raises(EngineFilesError, match="nothing here runs OnnxRuntime"):
        load_runner(tmp_path, piece(Executor.ONNX_RUNTIME))
