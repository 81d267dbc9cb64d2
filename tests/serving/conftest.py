"""One server for most claims: a toy engine served by a real tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_api.serving import Serving
from engine_runtime.triton.installation import find_triton
from engine_runtime.triton.server import LocalTriton
from tests.serving.toy_engine import write_toy_engine

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installation():
    return find_triton(REPOSITORY)  # Its error names `make serve-env`.


@pytest.fixture(scope="session")
def triton(tmp_path_factory, installation):
    folder = tmp_path_factory.mktemp("toy")
    # A long delay: whether requests share steps must not depend on how busy the machine is.
    write_toy_engine(folder / "repository", folder / "work", Serving(max_batch_size=8, max_queue_delay_microseconds=50_000))
    with LocalTriton(folder / "repository", installation=installation, log_file=folder / "triton.log") as server:
        yield server
