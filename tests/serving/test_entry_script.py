"""`tritonserver` of the CPU image, laid out as the image lays it out and started with the very arguments of a serving pod."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from diffusion_api.serving import Serving
from diffusion_operator.manifests import serving_pod
from engine_runtime.client import generate
from engine_runtime.triton.server import LOCALHOST, TritonPorts
from tests.serving.conftest import REPOSITORY
from tests.serving.observing import picture
from tests.serving.toy_engine import write_toy_engine

pytestmark = pytest.mark.serving
IMAGE = REPOSITORY / "images" / "triton-cpu"
KEY = "0b1c"


@pytest.fixture
def prefix(tmp_path):
    """What the image has in PREFIX, the environments by links as if they were mounted."""
    (tmp_path / "bin").mkdir()
    shutil.copy(IMAGE / "tritonserver", tmp_path / "bin")
    subprocess.run([IMAGE / "link_backends.sh", tmp_path], check=True)
    for name in (".venv-serve", ".venv-tritonserver"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    return tmp_path


@pytest.fixture
def server(prefix, monkeypatch):
    """Ports of a server that the pod's arguments started; only the ports differ."""
    write_toy_engine(prefix / "models", prefix / "work", Serving())
    ports = TritonPorts().resolved()
    monkeypatch.setattr(serving_pod, "MODELS_PATH", str(prefix / "models"))
    for name, port in (("HTTP_PORT", ports.http), ("GRPC_PORT", ports.grpc), ("METRICS_PORT", ports.metrics)):
        monkeypatch.setattr(serving_pod, name, port)
    arguments = [argument.replace("$(POD_UID)", KEY) for argument in serving_pod.triton_arguments(5)]
    environment = {"PATH": os.defpath, "HOME": "/tmp"}
    log = prefix / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([prefix / "bin" / "tritonserver", *arguments], env=environment, stdout=stream, stderr=stream, cwd="/")
    try:
        _wait_ready(process, ports.http, log)
        yield ports
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_ready(process, port, log):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://{LOCALHOST}:{port}/v2/health/ready", timeout=1).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"not ready; exit code {process.poll()}\n{log.read_text()[-3000:]}")


def status_of(port, path, **headers):
    request = urllib.request.Request(f"http://{LOCALHOST}:{port}{path}", data=b"{}", headers=headers, method="POST")
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_the_pod_s_command_draws_and_keeps_clients_from_what_is_not_theirs(server):
    (answer,) = generate(f"{LOCALHOST}:{server.grpc}", "red", seed=1)
    assert picture(answer).shape == (16, 32, 3)
    assert status_of(server.http, "/v2/repository/index") == 403
    assert status_of(server.http, "/v2/repository/index", **{"diffusion-operator-key": KEY}) == 200
    with grpc.InferenceServerClient(f"{LOCALHOST}:{server.grpc}") as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index()
        headers = {"triton-grpc-protocol-diffusion-operator-key": KEY}
        assert client.get_model_repository_index(headers=headers).models


def test_an_image_without_environment_says_so(prefix):
    (prefix / ".venv-serve").unlink()
    done = subprocess.run([prefix / "bin" / "tritonserver"], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert ".venv-serve/bin/python3 is missing" in done.stderr
