"""Claims about starting and stopping a tritonserver."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from diffusion_api.serving import Serving
from engine_runtime.triton.installation import TritonNotFoundError, find_triton
from engine_runtime.triton.server import LocalTriton, TritonStartError
from tests.serving.toy_engine import write_toy_engine

pytestmark = pytest.mark.serving

ABANDON = """
import os, sys
from pathlib import Path
from engine_runtime.triton.installation import find_triton
from engine_runtime.triton.server import LocalTriton
server = LocalTriton(Path(sys.argv[1]), installation=find_triton(Path(sys.argv[2]))).__enter__()
print(server._process.pid, flush=True)
os._exit(1)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_toy_engine(folder / "repository", folder / "work", Serving())
    return folder / "repository"


def test_a_broken_engine_ends_the_start_with_what_the_log_says(tmp_path, installation):
    write_toy_engine(tmp_path / "repository", tmp_path / "work", Serving())
    (tmp_path / "repository/transformer/1/model.xml").write_text("<net")
    with pytest.raises(TritonStartError, match="transformer"), LocalTriton(tmp_path / "repository", installation=installation):
        pass


def test_nothing_listens_after_the_block(repository, installation):
    with LocalTriton(repository, installation=installation) as server:
        url = server.http_url
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/v2/health/live")


def test_the_server_does_not_outlive_its_parent(repository, installation):
    folder = installation.serve_venv.parent
    command = [sys.executable, "-c", ABANDON, str(repository), str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    try:
        descriptor = os.pidfd_open(int(output))
    except ProcessLookupError:
        return  # Gone already.
    readable, _, _ = select.select([descriptor], [], [], 30)  # Readable when the process has ended.
    os.close(descriptor)
    assert readable


def test_a_missing_environment_names_the_cure(tmp_path):
    with pytest.raises(TritonNotFoundError, match="make serve-env"):
        find_triton(tmp_path, {"PATH": ""})
