"""Every format builds on the CPU, simulated where no kernel exists, and one page compares them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.builds import REPOSITORY

FILES = sorted((REPOSITORY / "examples" / "formats").glob("*.yaml"))
NATIVE = {"none", "int8-max", "int8-smoothquant"}


@pytest.fixture(scope="module")
def formats_store(shared_store):
    """The session's store, where the reference and the unquantized pieces are found again."""
    return shared_store


def diffusionctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "diffusionctl", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_explicit_format_builds_and_says_whether_it_is_simulated(file, formats_store):
    done = diffusionctl("build", file, "--store", formats_store, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["simulated"] is (file.stem not in NATIVE)
    assert report["verifiedOnEngine"] is True


def test_one_page_compares_all_formats(formats_store, tmp_path):
    done = diffusionctl("report", *FILES, "--store", formats_store, "--out", tmp_path / "frontier.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "frontier.html").read_text()
    for label in ("INT8 SmoothQuant", "FP8 Dynamic", "MXFP8", "NVFP4 AWQ", "NVFP4 SVDQuant"):
        assert label in page
    assert "simulated" in page.lower()
