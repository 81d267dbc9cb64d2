"""Finished builds that many tests look at, and a store in which further builds find their stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.builds import REPOSITORY, digits_job, run, write_job
from tests.support.cluster_programs import header, needs_programs, start_building, stop_building, wait_for_programs

SHARES = {"builder": "models", "cli": "models", "serving": "models", "e2e": "cluster", "e2e/diffusion_operator": "control plane"}
"""Folders below `tests`, nearest first, and to which share of the tests they belong; all others are `units`.
A share runs in one process: those of `models` have built engines in common, those of `cluster` the node, those of `control plane` an API
server. A process that is done takes the largest share that is left: one has models and the control plane, the other units and cluster."""
UNMEASURED = (
    "e2e",
    "builder/compilers",
    "builder/true_size",
    "builder/workflow/test_formats.py",
    "builder/workflow/test_gpu_builds.py",
)
"""Below `tests`: what takes long, and alone covers one line of a hundred (93 % of all with it, 92 % without). While coverage is measured,
torch's exporter, which is all Python, takes half as long again."""


class FolderScheduling(LoadScopeScheduling):
    """Gives each process whole shares. Not by marks of groups: pytest-xdist 3.8 loses them under pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePosixPath(nodeid.partition("::")[0]).relative_to("tests")
        return next((SHARES[str(folder)] for folder in path.parents if str(folder) in SHARES), "units")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FolderScheduling:
    return FolderScheduling(config, log)


def pytest_report_header(config: pytest.Config) -> str | None:
    return header(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of chart and cluster come last: meanwhile their programs are built."""
    items.sort(key=needs_programs)
    for item in items:
        if any(item.path.is_relative_to(Path(__file__).parent / path) for path in UNMEASURED):
            item.add_marker("no_cover")
    start_building(config, items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    wait_for_programs(item)
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    stop_building(config)


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
