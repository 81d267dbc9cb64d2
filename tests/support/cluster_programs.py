"""Builds the cluster's programs beside the other tests: it takes a quarter of an hour, once, of a core that the tests leave idle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.e2e.cluster.programs import missing_programs
from tests.e2e.cluster.requirements import BUILD, missing_for_programs

ROOT = Path(__file__).parents[1]
USERS = ("chart", "e2e")
"""Folders of tests that need kubectl, Helm or a cluster."""
API_SERVER = ROOT / "e2e" / "diffusion_operator"
"""Tests that start an API server of their own, whatever cluster the others use."""
_building = pytest.StashKey[subprocess.Popen[bytes]]()
_waited = pytest.StashKey[bool]()


def needs_programs(item: pytest.Item) -> bool:
    """Tell whether a test needs them."""
    return item.path.is_relative_to(ROOT) and item.path.relative_to(ROOT).parts[0] in USERS


def header(config: pytest.Config) -> str | None:
    """Say that the programs will be built, where worker processes run the tests, whose words nobody sees."""
    if getattr(config.option, "numprocesses", None) and _can_build():
        return "the test cluster's programs are built beside the tests, once, in a quarter of an hour and more; tests that need them wait"
    return None


def start_building(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the build where a test needs it and there is Go; of several worker processes, in the first."""
    is_first = getattr(config, "workerinput", {}).get("workerid", "gw0") == "gw0"
    if is_first and not config.option.collectonly and any(map(_waits, items)) and _can_build():
        _start(config)


def wait_for_programs(item: pytest.Item) -> None:
    """Wait for the build before the first test that needs it; outside the test's own time."""
    config = item.config
    if not _waits(item) or config.stash.get(_waited, False):
        return
    config.stash[_waited] = True
    if not _can_build():
        return
    if _building not in config.stash:
        _start(config)  # It waits for the one that another worker started.
    _say(config, "waiting for the test cluster's programs")
    with config.stash[_building] as building:
        code = building.wait()
    del config.stash[_building]
    if code:
        _say(config, f"the test cluster's programs could not be built (exit code {code}); `{BUILD}` says why")


def _can_build() -> bool:
    """Whether there is something to build, and Go; where the machine lacks it, tests say by themselves what they miss."""
    return bool(missing_programs()) and not missing_for_programs()


def _waits(item: pytest.Item) -> bool:
    """Whether a test waits for the build: with a cluster of the user's, kubectl and Helm are the user's too, where there are some."""
    has_own = os.environ.get("E2E_KUBECONFIG") and shutil.which("kubectl") and shutil.which("helm")
    return needs_programs(item) and not (has_own and not item.path.is_relative_to(API_SERVER))


def _start(config: pytest.Config) -> None:
    command = [sys.executable, "-m", "tests.e2e.cluster", "build", "--end-with-input"]
    with tempfile.NamedTemporaryFile("wb", prefix="cluster-programs-", suffix=".log", delete=False) as log:
        config.stash[_building] = subprocess.Popen(
            command, cwd=ROOT.parent, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    _say(config, f"building the test cluster's programs beside the tests, once; log: {log.name}")


def stop_building(config: pytest.Config) -> None:
    """End a build that nobody waits for any more; Go's cache keeps what it did."""
    building = config.stash.get(_building, None)
    if building is None:
        return
    if building.poll() is None:
        os.killpg(building.pid, signal.SIGTERM)
    with building:
        building.wait()


def _say(config: pytest.Config, text: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)
