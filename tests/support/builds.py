"""Jobs of small builds, and the builder as a process that can be watched and killed."""

from __future__ import annotations

import io
import json
import shutil
import signal
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.waiting import wait_until
from tests.support.warm_process import WarmProcess

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "examples" / "digits" / "digits-klein"


def digits_job(checkpoint: Path = DIGITS, **optimization: Any) -> dict[str, Any]:
    """A job that builds the digits model on few samples; keywords are laid over its optimization."""
    return {
        "apiVersion": "diffusionoperator.io/v1alpha1",
        "kind": "BuildJob",
        "model": {"uri": f"file://{checkpoint}", "sampling": {"maxSequenceLength": 16}},
        "shapes": [{"width": 64, "height": 64}],
        "optimization": {
            "quantization": {"format": "INT8"},
            "stepCache": {"policy": "None"},
            "calibration": {"samples": 4},
            "qualityBudget": {"minPSNR": 25},
            **optimization,
        },
        "accelerator": {"product": "CPU"},
        "maxBatchSize": 4,
    }


def write_job(folder: Path, job: dict[str, Any]) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def copied_checkpoint(folder: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(DIGITS, folder / "checkpoint"))


@dataclass
class Finished:
    code: int
    events: list[dict[str, Any]]
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        return self.events[-1]

    def stages(self, *, reused: bool) -> list[str]:
        return [event["stage"] for event in self.events if event["event"] == "finished" and event["reused"] is reused]


def start(job: Path, store: Path) -> WarmProcess:
    return WarmProcess(["build", str(job), "--store", str(store)])


def finish(process: WarmProcess) -> Finished:
    out = "".join(process.lines())
    code, errors = process.wait()
    return Finished(code, events_of(out), errors)


def events_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def run(job: Path, store: Path) -> Finished:
    with start(job, store) as process:
        return finish(process)


def run_here(job: Path, store: Path) -> Finished:
    """Build in this process, which has imported torch and ModelOpt already: a process of its own takes many seconds for that alone."""
    from engine_builder.__main__ import main  # noqa: PLC0415  # Tests without torch import this module too.

    out = io.StringIO()
    with redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main(["build", str(job), "--store", str(store)])
    return Finished(code, events_of(out.getvalue()), "")


def kill_in(stage: str, job: Path, store: Path, midway: Callable[[], bool] | None = None) -> list[str]:
    """Start a build and kill -9 it as soon as it says that it begins a stage, or as soon as `midway` then holds.

    Returns the stages it had done itself by then.
    """
    done = []
    with start(job, store) as process:
        for line in process.lines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "finished" and not event["reused"]:
                done.append(event["stage"])
            if event.get("event") == "started" and event["stage"] == stage:
                if midway is not None:
                    wait_until(f"the middle of {stage}", midway, 300)
                process.kill()
                break
        code, _ = process.wait()
    assert code == -signal.SIGKILL, f"the build ended before it reached {stage}"
    return done
