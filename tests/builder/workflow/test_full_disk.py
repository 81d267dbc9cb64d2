"""A disk that fills is found before a stage writes, and where it is not, what the libraries say of it is understood."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from tests.support.builds import REPOSITORY, digits_job, run_here, write_job

# No other test exports this mix into the store that tests share.
NEEDS_EXPORT = digits_job(quantization={"format": "FP8", "mode": "Dynamic", "components": {"textEncoder": {"format": "FP8"}}})
NEEDS_COMPILE = digits_job() | {"maxBatchSize": 5}

SAVE = {
    "openvino": """
import openvino
from openvino import opset13
constant = opset13.constant(numpy.ones(10**5, dtype=numpy.float32) * 3)
openvino.save_model(openvino.Model([opset13.result(opset13.relu(constant))], [], "m"), sys.argv[1], compress_to_fp16=False)
""",
    "torch": "import torch; torch.save({'a': torch.ones(10**5)}, sys.argv[1])",
}
PROGRAM = """
import numpy, resource, signal, sys
from engine_builder.failures import as_build_error
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))  # A write beyond it fails, as on a full disk.
try:
    SAVE
except Exception as error:
    sys.exit(as_build_error(error).exit_code)
"""


@pytest.mark.parametrize(("stage", "job"), [("export", NEEDS_EXPORT), ("compile", NEEDS_COMPILE)])
def test_a_disk_that_cannot_take_the_weights_is_found_before(stage, job, built, shared_store, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
    finished = run_here(write_job(tmp_path, job), shared_store)
    assert finished.code == 75
    assert "more disk space is needed" in finished.result["message"]
    assert [event["stage"] for event in finished.events if event["event"] == "started"][-1] == stage


@pytest.mark.parametrize("library", SAVE)
def test_a_file_that_a_library_could_not_write_whole_is_tried_again(library, tmp_path):
    program = PROGRAM.replace("SAVE", SAVE[library].replace("\n", "\n    "))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "x.xml")], cwd=REPOSITORY, check=False)
    assert done.returncode == 75
