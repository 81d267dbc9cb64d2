"""Claims about the model repository; that Triton accepts it is claimed in tests/serving."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from diffusion_api.serving import Serving
from engine_runtime.errors import EngineFilesError
from engine_runtime.repository import load_engine_files
from engine_runtime.triton.config import piece_config, pipeline_config
from engine_runtime.triton.repository import link_model_repository, load_piece, write_model_repository
from engine_runtime.triton.text_proto import EnumWord, text_proto
from tests.unit.engine_runtime import toy

X = TensorSpec(name="hidden_states", dtype=Dtype.FP32, dims=("image_tokens", 16))
TIMESTEP = TensorSpec(name="timestep", dtype=Dtype.FP32, dims=())
SAMPLE = TensorSpec(name="sample", dtype=Dtype.BF16, dims=("image_tokens", 16))
TOKENIZER = '{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}'


def piece(name: str = "transformer", executor: Executor = Executor.TENSORRT, file: str = "model.plan") -> Piece:
    return Piece(name=name, executor=executor, file=file, inputs=(X, TIMESTEP), outputs=(SAMPLE,))


def engine(executor: Executor = Executor.OPENVINO, file: str = "model.xml"):
    return toy.manifest(pieces={"transformer": piece(executor=executor, file=file)})


def write(root, compiled, manifest=None):
    write_model_repository(root, manifest=manifest or engine(), compiled=compiled, constants=toy.constants(), tokenizer_json=TOKENIZER)


@pytest.fixture
def compiled(tmp_path):
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / "model.xml").write_text("<net/>")
    (folder / "model.bin").write_bytes(b"weights")
    return {"transformer": folder}


def test_text_is_nested_quoted_and_escaped():
    message = {"name": 'a"\\\n', "kind": EnumWord("KIND_CPU"), "on": True, "dims": [-1, 3], "part": [{"x": 1}, {}]}
    assert text_proto(message) == ('name: "a\\"\\\\\\n"\nkind: KIND_CPU\non: true\ndims: [-1, 3]\npart {\n  x: 1\n}\npart {\n}\n')


def test_a_tensorrt_piece_runs_in_tritons_own_backend_on_the_gpu():
    config = piece_config(piece(), engine(), Serving())
    assert 'backend: "tensorrt"' in config
    assert 'default_model_filename: "model.plan"' in config
    assert "kind: KIND_GPU" in config
    assert "data_type: TYPE_BF16" in config


RTX = {"library": "tensorrt_rtx", "version": "1.7.1.116", "computeCapability": "12.0"}


def rtx_engine():
    return toy.manifest(pieces={"transformer": piece().model_copy(update={"options": RTX})})


def test_a_plan_of_tensorrt_rtx_runs_in_a_python_model_whose_inputs_stay_on_the_gpu():
    config = piece_config(rtx_engine().pieces["transformer"], rtx_engine(), Serving())
    assert 'backend: "python"' in config
    assert "default_model_filename" not in config
    assert "kind: KIND_GPU" in config
    assert 'key: "FORCE_CPU_ONLY_INPUT_TENSORS"\n  value {\n    string_value: "no"' in config
    assert "FORCE_CPU" not in piece_config(piece(executor=Executor.OPENVINO), engine(), Serving())


def test_a_plan_of_tensorrt_rtx_is_linked_with_its_python_model_however_it_was_packaged(tmp_path):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled/model.plan").write_bytes(b"plan")
    write(tmp_path / "engine", {"transformer": tmp_path / "compiled"}, rtx_engine())
    packaged = tmp_path / "engine/transformer/1"
    for name in ("packaged now", "packaged for Triton's back end"):
        link_model_repository(tmp_path / "engine", tmp_path / name, Serving())
        served = tmp_path / name / "transformer/1"
        assert {path.name for path in served.iterdir()} == {"model.plan", "model.py", "piece.json"}
        assert load_piece(served) == rtx_engine().pieces["transformer"]
        for path in (packaged / "model.py", packaged / "piece.json"):
            path.unlink(missing_ok=True)


def test_axes_without_a_number_are_dynamic_and_a_lone_batch_axis_is_reshaped():
    lines = piece_config(piece(), engine(), Serving()).replace("\n", " ")
    assert "dims: [-1, 16]" in lines
    assert 'name: "timestep"   data_type: TYPE_FP32   dims: [1]   reshape {   }' in lines


def test_the_batch_is_the_smaller_of_engine_and_serving():
    assert "max_batch_size: 8" in piece_config(piece(), engine(), Serving(max_batch_size=64))
    assert "max_batch_size: 2" in piece_config(piece(), engine(), Serving(max_batch_size=2))


@pytest.mark.parametrize(("name", "delay"), [("transformer", 700), ("transformer_body", 700), ("transformer_head", 0), ("vae_decoder", 0)])
def test_only_the_blocks_wait_for_company(name, delay):
    config = piece_config(piece(name), engine(), Serving(max_queue_delay_microseconds=700))
    assert f"max_queue_delay_microseconds: {delay}" in config


def test_the_pipeline_is_decoupled_and_optional_inputs_are_marked():
    config = pipeline_config(engine(), Serving(max_pending_requests=5))
    assert "decoupled: true" in config
    assert config.count("optional: true") == 6
    assert 'string_value: "5"' in config
    assert "kind: KIND_CPU" in config


def test_a_repository_holds_all_that_the_loop_needs(tmp_path, compiled):
    write(tmp_path / "repository", compiled)
    version = tmp_path / "repository/transformer/1"
    assert {path.name for path in version.iterdir()} == {"model.xml", "model.bin", "model.py", "piece.json"}
    assert load_piece(version) == engine().pieces["transformer"]
    files = load_engine_files(tmp_path / "repository/pipeline/1")
    assert files.manifest == engine()
    np.testing.assert_array_equal(files.constants["ids_16x16"], toy.constants()["ids_16x16"])


def test_a_tensorrt_piece_is_its_plan_alone(tmp_path):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled/model.plan").write_bytes(b"plan")
    write(tmp_path / "repository", {"transformer": tmp_path / "compiled"}, engine(Executor.TENSORRT, "model.plan"))
    assert not (tmp_path / "repository/transformer/1/model.py").exists()


def test_serving_settings_change_without_touching_the_engine(tmp_path, compiled):
    write(tmp_path / "engine", compiled)
    before = {path: path.read_bytes() for path in (tmp_path / "engine").rglob("*") if path.is_file()}
    for batch in (2, 4):
        link_model_repository(tmp_path / "engine", tmp_path / "served", Serving(max_batch_size=batch))
        assert f"max_batch_size: {batch}" in (tmp_path / "served/transformer/config.pbtxt").read_text()
    assert (tmp_path / "served/transformer/1/model.bin").read_bytes() == b"weights"
    assert {path: path.read_bytes() for path in (tmp_path / "engine").rglob("*") if path.is_file()} == before


def test_a_piece_that_was_not_compiled_is_named(tmp_path):
    with pytest.raises(EngineFilesError, match=r"transformer has no compiled file model\.xml"):
        write(tmp_path / "repository", {})


def test_a_missing_constant_is_named(tmp_path, compiled):
    write_model_repository(tmp_path, manifest=engine(), compiled=compiled, constants={}, tokenizer_json=TOKENIZER)
    with pytest.raises(EngineFilesError, match="lacks ids_16x16, ids_32x16"):
        load_engine_files(tmp_path / "pipeline/1")


def test_a_manifest_of_another_version_is_refused_with_the_field(tmp_path, compiled):
    write(tmp_path, compiled)
    path = tmp_path / "pipeline/1/engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"formatVersion": 2}))
    with pytest.raises(EngineFilesError, match="formatVersion"):
        load_engine_files(tmp_path / "pipeline/1")


def test_a_folder_without_an_engine_is_named(tmp_path):
    with pytest.raises(EngineFilesError, match="is this a pipeline's version folder"):
        load_engine_files(tmp_path)
