"""Who builds the cluster's programs, when, and for how long. Nothing is built here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.e2e.cluster import programs, requirements
from tests.support import cluster_programs

CHART = cluster_programs.ROOT / "chart" / "test_values.py"
DIGITS = cluster_programs.ROOT / "e2e" / "digits" / "test_pictures.py"
OPERATOR = cluster_programs.API_SERVER / "test_quiet.py"
UNIT = cluster_programs.ROOT / "unit" / "test_any.py"

BUILD = """
import subprocess
from tests.e2e.cluster.programs import end_with_input
end_with_input()
subprocess.run(["sleep", "600"])
"""
PYTEST = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {BUILD!r}], stdin=subprocess.PIPE, start_new_session=True)
print("started", flush=True)
child.wait()
"""


@pytest.fixture
def has_go(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(requirements, "_missing_go", lambda: [])
    monkeypatch.setattr(requirements, "missing_programs", lambda: [programs.KUBE])
    monkeypatch.setattr(cluster_programs, "missing_programs", lambda: [programs.KUBE])


def waiting(monkeypatch: pytest.MonkeyPatch, *, kubeconfig: bool, on_path: bool) -> set[Path]:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    if kubeconfig:
        monkeypatch.setenv("E2E_KUBECONFIG", "/home/me/kubeconfig")
    monkeypatch.setattr(cluster_programs.shutil, "which", lambda name: f"/bin/{name}" if on_path else None)
    return {path for path in (UNIT, CHART, DIGITS, OPERATOR) if cluster_programs._waits(SimpleNamespace(path=path))}


def test_programs_are_built_without_root(monkeypatch: pytest.MonkeyPatch, has_go):
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    assert requirements.missing_for_programs() == []
    assert cluster_programs._can_build()
    assert "root" in requirements.missing_requirements()[0]


def test_without_go_nothing_is_built(monkeypatch: pytest.MonkeyPatch, has_go):
    monkeypatch.setattr(requirements, "_missing_go", lambda: ["install Go"])
    assert not cluster_programs._can_build()


def test_only_tests_that_use_programs_wait_for_them(monkeypatch: pytest.MonkeyPatch):
    assert waiting(monkeypatch, kubeconfig=False, on_path=True) == {CHART, DIGITS, OPERATOR}


def test_with_a_cluster_and_tools_of_the_users_only_tests_with_an_api_server_of_their_own_wait(monkeypatch: pytest.MonkeyPatch):
    assert waiting(monkeypatch, kubeconfig=True, on_path=True) == {OPERATOR}
    assert waiting(monkeypatch, kubeconfig=True, on_path=False) == {CHART, DIGITS, OPERATOR}


def test_a_build_ends_with_the_process_that_started_it_however_that_ends():
    parent = subprocess.Popen([sys.executable, "-c", PYTEST], cwd=cluster_programs.ROOT.parent, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"started\n"
    parent.kill()
    # Standard output ends only when the build and what it started have ended, who hold it too.
    parent.communicate(timeout=30)
