"""The command line as a user runs it: real processes, exit codes and output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.digits.judge import wrong_pictures
from tests.support.builds import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "digits.yaml"


def diffusionctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffusionctl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=300)


def test_a_valid_file_is_said_to_be_valid():
    done = diffusionctl("validate", EXAMPLE)
    assert done.returncode == 0
    assert "digits is valid" in done.stdout


def test_a_wrong_file_is_refused_with_every_reason_and_no_traceback(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(EXAMPLE.read_text().replace("width: 64", "width: 1000").replace("maxBatchSize", "maxBatchsize"))
    done = diffusionctl("validate", wrong)
    assert done.returncode == 2
    assert "spec.shapes[0].width: 1000 is not a multiple of 16; use 992 or 1008" in done.stderr
    assert "maxBatchSize" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "said"), [("a: [", "not YAML"), ("kind: Pod", "no object of kind"), (None, "No such file")])
def test_what_is_no_deployment_file_is_refused(tmp_path, text, said):
    file = tmp_path / "x.yaml"
    if text is not None:
        file.write_text(text)
    done = diffusionctl("validate", file)
    assert done.returncode == 2
    assert said in done.stderr


def test_plan_says_what_would_be_built_and_what_is_there(demo_engine, shared_store):
    plan = json.loads(diffusionctl("plan", EXAMPLE, "--store", shared_store, "--json").stdout)
    assert plan["published"] == str(demo_engine)
    assert {recipe["label"].split(" ")[0] for recipe in plan["recipes"]} == {"INT8", "BF16,"}


def test_build_says_what_it_compares_and_int8_is_smaller(demo_engine, shared_store):
    done = diffusionctl("build", EXAMPLE, "--store", shared_store)
    sizes = {row: float(size) for row, size in re.findall(r"^(unoptimized|optimized)\b.* (\S+) MiB *$", done.stdout, re.MULTILINE)}
    assert sizes["optimized"] < sizes["unoptimized"]
    assert "Weights: of the checkpoint's files, and of the engine's pieces." in done.stdout
    assert str(demo_engine / "report.html") in done.stdout


def test_plan_of_an_empty_store_builds_nothing(tmp_path):
    plan = json.loads(diffusionctl("plan", EXAMPLE, "--store", tmp_path / "store", "--json").stdout)
    assert plan["published"] is None
    assert plan["why"] == "no engine of this model is in the store"
    assert [(each["stage"], each["inStore"]) for each in plan["stages"]] == [("fetch", False)]
    assert not (tmp_path / "store").exists()


def test_plan_names_what_differs_and_which_stages_are_reused_and_changes_nothing(demo_engine, shared_store, tmp_path):
    text = EXAMPLE.read_text().replace("minPSNR: 35", "minPSNR: 36").replace("file://digits", f"file://{EXAMPLE.parent}/digits")
    file = tmp_path / "digits.yaml"
    file.write_text(text)
    before = files_of(shared_store)
    plan = json.loads(diffusionctl("plan", file, "--store", shared_store, "--json").stdout)
    assert plan["published"] is None
    assert plan["nearest"]["name"] == demo_engine.name
    fields = {each["field"]: (each["stored"], each["wanted"]) for each in plan["nearest"]["differences"]}
    assert fields.pop("optimization.qualityBudget.minPSNR") == (35, 36)
    assert set(fields) == {"model.uri"}
    stages = {each["stage"]: each["inStore"] for each in plan["stages"]}
    assert stages == {"fetch": True, "reference": True, "quantize": True, "candidate": True, "step-cache": False}
    assert files_of(shared_store) == before


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_report_copies_the_page_of_a_build(demo_engine, shared_store, tmp_path):
    done = diffusionctl("report", EXAMPLE, "--store", shared_store, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").read_bytes() == (demo_engine / "report.html").read_bytes()


def test_report_of_what_is_not_built_says_how_to_build_it(tmp_path):
    done = diffusionctl("report", EXAMPLE, "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "diffusionctl build" in done.stderr


def test_generate_without_a_server_says_so(tmp_path):
    done = diffusionctl("generate", "a red digit seven", "--out", tmp_path / "x.png", "--url", "127.0.0.1:9")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_serves_until_interrupted_and_generate_draws(demo_engine, shared_store, tmp_path):
    command = [sys.executable, "-u", "-m", "diffusionctl", "run", str(EXAMPLE), "--store", str(shared_store)]
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    server = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=dict(os.environ))
    try:
        url = grpc_url(server)
        out = tmp_path / "seven.png"
        done = diffusionctl("generate", "a red digit seven", "--out", out, "--url", url, "--seed", 3)
        assert done.returncode == 0, done.stderr
        assert wrong_pictures(["a red digit seven"], np.asarray(Image.open(out))[None]) == []
    finally:
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "stopped" in rest


def grpc_url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"gRPC\s+(\S+)", line):
            return found[1]
    raise AssertionError(f"the server ended with exit code {server.wait()} before it served")
