"""How long a build of the digits model takes: from nothing, with one thing changed, and reused; prints two tables.

    python -m benchmarks.build_time

Each build is a process of its own, so its time includes the interpreter's start and every import.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from diffusion_api.build_report import BuildReport
from engine_builder.evaluation.budget import text_table

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits.yaml"


@dataclass(frozen=True)
class TimedBuild:
    """A finished build."""

    report: BuildReport
    seconds: float
    cpu_seconds: float
    """Of the process and its children: what other work on the machine changes less."""


def main() -> None:
    """Build four times into one store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        text = EXAMPLE.read_text().replace("file://digits", f"file://{EXAMPLE.parent}/digits")
        mask = "stepCache: {policy: FixedMask, mask: [true, true, true, false]}"
        masked = _written(folder / "masked.yaml", text.replace("stepCache: {policy: Auto}", mask).replace("minPSNR: 35", "minPSNR: 25"))
        smaller = _written(folder / "smaller.yaml", text.replace("maxBatchSize: 8", "maxBatchSize: 4"))
        first = build(EXAMPLE, store)
        rows = [_row("from nothing", first, 120), _row("only the step cache changed", build(masked, store), 30)]
        rows += [_row("only the largest batch changed", build(smaller, store), 30), _row("reused", build(EXAMPLE, store), 3)]
    print(text_table(["build of digits", "took", "CPU time", "goal"], rows))
    print()
    stages = [[stage.name, f"{stage.seconds:.1f} s", f"{stage.peak_memory_mib:.0f} MiB"] for stage in first.report.stages]
    print(text_table(["stage, built from nothing", "took", "peak memory"], stages))


def build(file: Path, store: Path) -> TimedBuild:
    """Build a file in a process of its own."""
    begin, cpu = time.perf_counter(), _children_cpu_seconds()
    command = [sys.executable, "-W", "ignore", "-m", "diffusionctl", "build", str(file), "--store", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    report = BuildReport.model_validate(json.loads(done.stdout)["report"])
    return TimedBuild(report, time.perf_counter() - begin, _children_cpu_seconds() - cpu)


def _row(name: str, done: TimedBuild, goal_seconds: int) -> list[str]:
    return [name, f"{done.seconds:.1f} s", f"{done.cpu_seconds:.1f} s", f"{goal_seconds} s"]


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
