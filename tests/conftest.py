"""Finished builds that many tests look at, and a store in which further builds find their stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builds import REPOSITORY, digits_job, run, write_job


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def built(shared_store, tmp_path_factory):
    """The digits model in INT8, as the builder's process reports it."""
    finished = run(write_job(tmp_path_factory.mktemp("job"), digits_job()), shared_store)
    assert finished.code == 0, finished.events[-1:] or finished.errors
    return finished


@pytest.fixture(scope="session")
def demo_engine(shared_store):
    """Folder of the engine of `examples/digits.yaml`, built by the command line."""
    command = [sys.executable, "-m", "diffusionctl", "build", "examples/digits.yaml", "--store", str(shared_store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["path"])
