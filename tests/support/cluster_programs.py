"""Builds the cluster's programs beside the other tests: it takes a quarter of an hour, once, of a core that the tests leave idle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.e2e.cluster.programs import missing_programs
from tests.e2e.cluster.requirements import missing_requirements

ROOT = Path(__file__).parents[1]
USERS = ("chart", "e2e")
"""Folders of tests that need kubectl, Helm or a cluster."""
_building = pytest.StashKey[subprocess.Popen[bytes]]()


def needs_programs(item: pytest.Item) -> bool:
    """Tell whether a test needs them."""
    return item.path.is_relative_to(ROOT) and item.path.relative_to(ROOT).parts[0] in USERS


def start_building(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the build where a test needs it and the machine can do it."""
    if config.option.collectonly or not any(map(needs_programs, items)) or not missing_programs():
        return
    if os.environ.get("E2E_KUBECONFIG") or missing_requirements(install=True):
        return  # Tests say by themselves what they miss.
    log = tempfile.NamedTemporaryFile("wb", prefix="cluster-programs-", suffix=".log", delete=False)  # noqa: SIM115 - the process writes on
    command = [sys.executable, "-m", "tests.e2e.cluster", "build"]
    config.stash[_building] = subprocess.Popen(command, cwd=ROOT.parent, stdout=log, stderr=log, start_new_session=True)
    _say(config, f"building the test cluster's programs beside the tests, once; log: {log.name}")


def wait_for_programs(item: pytest.Item) -> None:
    """Wait for the build before the first test that needs it; outside the test's own time."""
    building = item.config.stash.get(_building, None)
    if building is None or not needs_programs(item):
        return
    if building.poll() is None:
        _say(item.config, "waiting for the test cluster's programs")
    code = building.wait()
    del item.config.stash[_building]
    if code:
        _say(item.config, f"the test cluster's programs could not be built (exit code {code}); `make cluster-up` says why")


def stop_building(config: pytest.Config) -> None:
    """End a build that nobody waits for any more; Go's cache keeps what it did."""
    building = config.stash.get(_building, None)
    if building is not None:
        os.killpg(building.pid, signal.SIGTERM)
        building.wait()


def _say(config: pytest.Config, text: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)
