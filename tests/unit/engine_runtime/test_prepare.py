"""What the container before Triton refuses, with which code and in which words; tests/serving serves what it prepares."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from diffusion_api.prepare_exit import PrepareExit
from diffusion_api.serving import Serving
from engine_builder.store.checksums import differences, measure, write_checksums
from engine_runtime.bucket import Bucket
from engine_runtime.nvidia import Gpu, NoGpuError
from engine_runtime.triton import prepare
from engine_runtime.triton.repository import write_model_repository
from tests.support.buckets import URI, keys, overwrite
from tests.unit.engine_runtime import toy

X = TensorSpec(name="x", dtype=Dtype.FP32, dims=("image_tokens", 16))
TOKENIZER = '{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}'
PLAN = {"library": "tensorrt", "version": "11.1.0.106", "computeCapability": "10.0"}
SERVING = json.dumps(Serving(max_batch_size=4).to_wire())


def manifest(executor=Executor.OPENVINO, file="model.xml", **options):
    piece = Piece(name="transformer", executor=executor, file=file, inputs=(X,), outputs=(X,), options=options)
    return toy.manifest(pieces={"transformer": piece})


def plan_manifest(**options):
    return manifest(Executor.TENSORRT, "model.plan", **{**PLAN, **options})


@pytest.fixture
def engine(tmp_path):
    """An engine's folder as the store holds it."""
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    (compiled / "model.xml").write_text("<net/>")
    (compiled / "model.bin").write_bytes(b"weights")
    folder = tmp_path / "engine-0123456789abcdef"
    write_model_repository(
        folder / "model_repository",
        manifest=manifest(),
        compiled={"transformer": compiled},
        constants=toy.constants(),
        tokenizer_json=TOKENIZER,
    )
    write_checksums(folder, measure(folder))
    return folder


@pytest.fixture
def run(engine, tmp_path):
    """Runs the command; returns its exit code and what it left in the termination log."""
    log = tmp_path / "termination-log"
    log.touch()

    def call(*further, serving=SERVING):
        log.write_text("")
        arguments = ["--engine", str(engine), "--models", str(tmp_path / "models"), "--serving", serving]
        return prepare.main([*arguments, "--termination-log", str(log), *further]), log.read_text()

    return call


@pytest.fixture
def b200(monkeypatch):
    monkeypatch.setattr(prepare, "first_gpu", lambda: Gpu("NVIDIA B200", "10.0"))
    monkeypatch.setattr(prepare, "library_version", lambda library, major: "11.1.0.106")


def refusal(result, capability="10.0"):
    with pytest.raises(prepare.PrepareError) as error:
        prepare.require_fit(result, capability)
    assert error.value.exit_code is PrepareExit.MISMATCH
    return str(error.value)


def test_a_whole_engine_is_linked_with_the_deployment_s_own_batching(run, engine, tmp_path):
    assert run() == (0, "")
    assert "max_batch_size: 4" in (tmp_path / "models/transformer/config.pbtxt").read_text()
    version, kept = tmp_path / "models/transformer/1", engine / "model_repository/transformer/1"
    assert {file.name: file.resolve() for file in version.iterdir()} == {file.name: file for file in kept.iterdir()}


def test_a_restarted_container_prepares_the_same_again(run):
    assert [run()[0], run()[0]] == [0, 0]


def test_an_engine_that_is_not_there_is_to_be_built_again(run, engine):
    engine.rename(engine.with_name("gone"))
    assert run() == (PrepareExit.FILES_MISSING, f"{engine} is not in the engine store")


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("model_repository/transformer/1/model.bin", None, "model.bin is missing"),
        ("model_repository/transformer/1/model.bin", b"weight", "model.bin has 6 bytes instead of 7"),
        ("model_repository/transformer/1/model.bin", b"wEights", "model.bin has changed"),
        ("checksums.json", None, "checksums.json cannot be read"),
        ("checksums.json", b"{", "checksums.json cannot be read"),
    ],
)
def test_a_damaged_engine_is_to_be_built_again_and_the_sentence_names_the_file(run, engine, tmp_path, path, content, words):
    file = engine / path
    file.unlink() if content is None else file.write_bytes(content)
    code, sentence = run()
    assert code == PrepareExit.FILES_MISSING
    assert words in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "models").exists()


def test_a_large_file_is_compared_by_size_unless_asked(run, engine, monkeypatch):
    monkeypatch.setattr(prepare, "HASHED_FILE_MIB", 0)
    (engine / "model_repository/transformer/1/model.bin").write_bytes(b"wEights")
    assert run()[0] == 0
    assert run("--verify-checksums")[0] == PrepareExit.FILES_MISSING


def test_a_file_that_someone_added_keeps_no_engine_from_serving(run, engine):
    (engine / "note.txt").write_text("kept for the audit")
    assert run()[0] == 0


def test_an_engine_of_another_release_is_a_mismatch(run, engine):
    (engine / "model_repository/pipeline/1/engine.json").write_text('{"formatVersion": 99}')
    write_checksums(engine, measure(engine))
    code, sentence = run()
    assert code == PrepareExit.MISMATCH
    assert "another release" in sentence


@pytest.mark.parametrize("serving", ["{", "[]", '{"maxBatchSize": 0}', '{"newField": 1}'])
def test_settings_that_this_release_does_not_know_are_the_operator_s_fault(run, serving):
    code, sentence = run(serving=serving)
    assert code == PrepareExit.USAGE
    assert "--serving" in sentence


def test_a_store_that_cannot_be_read_is_tried_again(run, monkeypatch):
    def broken(*_, **__):
        raise OSError(5, "Input/output error", "/engine-store/x")

    monkeypatch.setattr(prepare, "damage", broken)
    code, sentence = run()
    assert code == PrepareExit.TRANSIENT
    assert "/engine-store/x: Input/output error" in sentence


@pytest.fixture
def stored(engine, bucket, monkeypatch):
    """The engine, in a bucket alone."""
    monkeypatch.setenv("DIFFUSION_STORE_URI", URI)
    bucket.upload(engine.name, engine)
    shutil.rmtree(engine)
    return bucket


def test_an_engine_is_brought_from_a_bucket(run, engine, stored, tmp_path):
    assert run() == (0, "")
    assert differences(engine, full=True) == ()
    assert (tmp_path / "models/transformer/1/model.bin").resolve().read_bytes() == b"weights"


def test_a_restarted_container_brings_nothing_again(run, stored, monkeypatch):
    assert run()[0] == 0
    monkeypatch.setattr(Bucket, "download", lambda *given: pytest.fail("brought again"))
    assert run()[0] == 0


def test_a_damaged_copy_is_brought_again(run, engine, stored):
    assert run()[0] == 0
    (engine / "model_repository/transformer/1/model.bin").write_bytes(b"wEights")
    assert run() == (0, "")
    assert differences(engine, full=True) == ()


def test_an_engine_that_no_bucket_has_is_to_be_built_again(run, engine, stored):
    stored.delete(engine.name)
    assert run() == (PrepareExit.FILES_MISSING, f"{engine.name} is not in {URI}")


def test_an_engine_that_is_damaged_in_the_bucket_is_to_be_built_again(run, engine, stored, client):
    (blob, *_) = [key for key in keys(client) if not key.endswith("checksums.json")]
    overwrite(client, blob, b"")
    code, sentence = run()
    assert code == PrepareExit.FILES_MISSING
    assert "is damaged" in sentence
    assert not engine.exists()


def test_a_bucket_out_of_reach_is_tried_again(run, stored, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, sentence = run()
    assert code == PrepareExit.TRANSIENT
    assert "cannot be reached" in sentence


def test_a_bucket_that_refuses_is_tried_again_and_never_built_again(run, stored, monkeypatch):
    monkeypatch.setenv("DIFFUSION_STORE_URI", "s3://nowhere")
    code, sentence = run()
    assert code == PrepareExit.TRANSIENT
    assert "there is no bucket nowhere" in sentence


def test_an_image_without_the_client_is_of_another_release(run, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "engine_runtime.bucket", None)
    code, sentence = run()
    assert code == PrepareExit.USAGE
    assert "are operator and image of one release" in sentence


def test_a_plan_fits_its_own_gpu_and_tensorrt(b200):
    prepare.require_fit(plan_manifest(), "10.0")


def test_another_tensorrt_is_named_with_both_versions(b200):
    assert "TensorRT 11.2.0.1, and this image has 11.1.0.106" in refusal(plan_manifest(version="11.2.0.1"))


def test_another_gpu_is_named_with_both_capabilities(b200):
    sentence = refusal(plan_manifest(computeCapability="9.0"), "9.0")
    assert sentence == "the engine needs a GPU of compute capability 9.0, and this node's NVIDIA B200 has 10.0"


def test_an_engine_for_another_gpu_than_the_deployment_s_is_refused(b200):
    assert "10.0 and 9.0" in refusal(plan_manifest(), "9.0")


def test_an_image_without_tensorrt_is_a_mismatch(b200, monkeypatch):
    monkeypatch.setattr(prepare, "library_version", lambda library, major: None)
    assert "this image has no TensorRT" in refusal(plan_manifest())


def test_a_node_without_gpu_is_a_mismatch(b200, monkeypatch):
    def none():
        raise NoGpuError("no NVIDIA driver")

    monkeypatch.setattr(prepare, "first_gpu", none)
    assert refusal(plan_manifest()).endswith("and there is no NVIDIA driver")


def test_an_image_without_openvino_is_a_mismatch(monkeypatch):
    monkeypatch.setattr(prepare, "find_spec", lambda name: None)
    assert "no OpenVINO" in refusal(manifest(), None)


def test_an_engine_of_the_cpu_asks_for_no_gpu(monkeypatch):
    monkeypatch.setattr(prepare, "first_gpu", lambda: pytest.fail("asked for a GPU"))
    prepare.require_fit(manifest(), None)
