"""Two servers for all claims: a toy engine in one piece, and one in three pieces with a step cache, slow and with a short queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_api.serving import Serving
from engine_runtime.triton.installation import find_triton
from engine_runtime.triton.repository import link_model_repository
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


@pytest.fixture(scope="session")
def slow_triton(tmp_path_factory, installation):
    """Computes three of four steps; three requests run at once and one may wait.

    A request alone takes half a second a step, for which it waits for a neighbour; two that are in step take none of that.
    """
    folder = tmp_path_factory.mktemp("slow")
    write_toy_engine(folder / "engine", folder / "work", Serving(), mask=(True, True, True, False))
    serving = Serving(max_batch_size=2, max_queue_delay_microseconds=500_000, max_pending_requests=1)
    link_model_repository(folder / "engine", folder / "repository", serving)
    with LocalTriton(folder / "repository", installation=installation, log_file=folder / "triton.log") as server:
        yield server
