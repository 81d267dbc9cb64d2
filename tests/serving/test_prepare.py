"""The container before Triton, in the serving environment alone, over a store that stays as it is."""

from __future__ import annotations

import json
import subprocess

import pytest

from diffusion_api.prepare_exit import PrepareExit
from diffusion_api.serving import Serving
from engine_builder.store.checksums import differences, measure, write_checksums
from engine_runtime.bucket import Bucket
from engine_runtime.client import generate
from engine_runtime.triton.server import LocalTriton
from tests.serving.observing import picture
from tests.serving.toy_engine import write_toy_engine
from tests.support.buckets import URI, empty_bucket, s3_server

pytestmark = pytest.mark.serving


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "store" / "artifacts" / "engine-0123456789abcdef"
    write_toy_engine(folder / "model_repository", tmp_path / "work", Serving())
    write_checksums(folder, measure(folder))
    return folder


def prepare(installation, engine, models, **serving):
    """The command of the operator's init container, by the interpreter whose packages the models use."""
    command = [str(installation.serve_venv / "bin/python3"), "-m", "engine_runtime.triton.prepare", "--engine", str(engine)]
    command += ["--models", str(models), "--serving", json.dumps(Serving(**serving).to_wire())]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_triton_serves_what_was_prepared_with_the_deployment_s_batching(installation, engine, tmp_path):
    done = prepare(installation, engine, tmp_path / "models", max_batch_size=3)
    assert (done.returncode, done.stderr) == (0, "")
    with LocalTriton(tmp_path / "models", installation=installation) as server:
        (answer,) = generate(server.grpc_url, "red", seed=1)
    assert picture(answer).shape == (16, 32, 3)
    assert "max_batch_size: 3" in (tmp_path / "models/transformer/config.pbtxt").read_text()
    assert differences(engine, full=True) == ()


def test_the_serving_environment_brings_an_engine_from_a_bucket(installation, engine, tmp_path, monkeypatch):
    with s3_server() as endpoint, empty_bucket(endpoint, monkeypatch):
        monkeypatch.setenv("DIFFUSION_STORE_URI", URI)
        Bucket(URI).upload(engine.name, engine)
        copy = tmp_path / "node" / "artifacts" / engine.name
        done = prepare(installation, copy, tmp_path / "models")
    assert (done.returncode, done.stderr) == (0, "")
    assert differences(copy, full=True) == ()
    assert (tmp_path / "models/transformer/1/model.bin").resolve().is_relative_to(copy)


def test_a_damaged_engine_is_refused_in_one_line(installation, engine, tmp_path):
    (engine / "model_repository/transformer/1/model.bin").write_bytes(b"")
    done = prepare(installation, engine, tmp_path / "models")
    assert done.returncode == PrepareExit.FILES_MISSING
    assert len(done.stderr.splitlines()) == 1
    assert "model.bin" in done.stderr
