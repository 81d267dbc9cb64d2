"""Every format builds on the CPU, simulated where no kernel exists, and one page compares them all."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from diffusionctl.build import build_file
from tests.support.builds import DIGITS, REPOSITORY

FILES = sorted((REPOSITORY / "examples" / "formats").glob("*.yaml"))
NATIVE = {"none", "int8-max", "int8-smoothquant"}


@pytest.fixture(scope="module")
def deployments(tmp_path_factory) -> dict[str, Path]:
    """The examples on as few samples as other tests, whose reference and unquantized pieces are then found in the session's store.

    On so few SmoothQuant is no better than 28 dB; what a budget refuses is tested elsewhere.
    """
    folder = tmp_path_factory.mktemp("formats")
    return {file.stem: on_few_samples(file, folder / file.name) for file in FILES}


def on_few_samples(example: Path, copy: Path) -> Path:
    deployment = yaml.safe_load(example.read_text())
    deployment["spec"]["model"]["uri"] = f"file://{DIGITS}"
    deployment["spec"]["optimization"] |= {"calibration": {"samples": 4}, "qualityBudget": {"minPSNR": 20}}
    copy.write_text(yaml.safe_dump(deployment))
    return copy


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_an_explicit_format_builds_and_says_whether_it_is_simulated(name, deployments, built, shared_store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = build_file(deployments[name], shared_store, simulate=False, as_json=True).report
    assert report.simulated is (name not in NATIVE)
    assert report.verified_on_engine is True
    assert {stage.name: stage.reused for stage in report.stages}["reference"] is True


def test_one_page_compares_all_formats(deployments, shared_store, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "diffusionctl", "report", *map(str, deployments.values())]
    options = ["--store", str(shared_store), "--out", str(tmp_path / "frontier.html")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "frontier.html").read_text()
    for label in ("INT8 SmoothQuant", "FP8 Dynamic", "MXFP8", "NVFP4 AWQ", "NVFP4 SVDQuant"):
        assert label in page
    assert "simulated" in page.lower()
