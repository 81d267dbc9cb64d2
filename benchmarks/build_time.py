"""How long a build of the digits model takes: from nothing, with only the step cache changed, and reused; prints two tables.

    python -m benchmarks.build_time

Each build is a process of its own, so its time includes the interpreter's start and every import.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffusion_api.build_report import BuildReport
from engine_builder.evaluation.budget import text_table

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits.yaml"


def main() -> None:
    """Build three times into one store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        changed = folder / "changed.yaml"
        text = EXAMPLE.read_text().replace("file://digits", f"file://{EXAMPLE.parent}/digits")
        mask = "stepCache: {policy: FixedMask, mask: [true, true, true, false]}"
        changed.write_text(text.replace("stepCache: {policy: Auto}", mask).replace("minPSNR: 35", "minPSNR: 25"))
        first, seconds = build(EXAMPLE, store)
        rows = [["from nothing", f"{seconds:.1f} s", "120 s"]]
        rows.append(["only the step cache changed", f"{build(changed, store)[1]:.1f} s", "30 s"])
        rows.append(["reused", f"{build(EXAMPLE, store)[1]:.1f} s", "3 s"])
    print(text_table(["build of digits", "took", "goal"], rows))
    print()
    stages = [[stage.name, f"{stage.seconds:.1f} s", f"{stage.peak_memory_mib:.0f} MiB"] for stage in first.stages]
    print(text_table(["stage, built from nothing", "took", "peak memory"], stages))


def build(file: Path, store: Path) -> tuple[BuildReport, float]:
    """Build a file and return its report and the seconds it took."""
    begin = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "diffusionctl", "build", str(file), "--store", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return BuildReport.model_validate(json.loads(done.stdout)["report"]), time.perf_counter() - begin


if __name__ == "__main__":
    main()
