"""What a build of FLUX.2 klein-4B's real size costs: seconds, memory and files of every stage, with random weights.

Usage: python -m benchmarks.true_size [--formats BF16 FP8 NVFP4] [--blocks 5 20] [--store DIR] [--keep]

Every component (text encoder, transformer, VAE) goes through quantization, export and TensorRT-RTX for compute capability 12.0,
1024x1024, batch 1 to 2. Calibration sees 64 image tokens and 64 text tokens for one step, for a processor cannot draw 1024x1024 in
minutes; the sizes of everything that is written, and all other times, do not depend on it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.true_size.processes import Measured, run_measured
from benchmarks.true_size.sizes import PIECES, Bench, ModelSize
from engine_builder.evaluation.budget import text_table

FORMATS = {"BF16": "None", "FP8": "FP8", "NVFP4": "NVFP4"}
GIB = 2**30
GOAL_GIB, GOAL_SECONDS = 22, 15 * 60


def main() -> None:
    """Build the formats one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--blocks", nargs=2, type=int, default=(5, 20), metavar=("DOUBLE", "SINGLE"))
    parser.add_argument("--components", nargs="+", choices=list(PIECES), default=list(PIECES))
    parser.add_argument("--store", type=Path, default=Path(".cache/true-size"), help="folder for the checkpoint and all files")
    parser.add_argument("--keep", action="store_true", help="leave the compiled files")
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    print(
        f"{os.cpu_count()} cores, {_memory_gib():.0f} GiB, {shutil.disk_usage(options.store).free / GIB:.0f} GiB of disk free", flush=True
    )
    size = ModelSize(blocks=options.blocks[0], single_blocks=options.blocks[1])
    model = _stage("model", [str(options.store.absolute()), asdict(size)], "random checkpoint")
    for name in options.formats:
        work = options.store.absolute() / name
        shutil.rmtree(work, ignore_errors=True)
        bench = Bench(checkpoint=model.facts["checkpoint"], work=str(work), format=FORMATS[name])
        measured = _build(bench, options.components)
        print(f"\n{name}, {options.blocks[0]} + {options.blocks[1]} blocks\n{_table(measured)}\n{_verdict(measured)}\n", flush=True)
        if not options.keep:
            shutil.rmtree(work)


def _build(bench: Bench, components: Sequence[str]) -> list[Measured]:
    values = asdict(bench)
    measured = []
    for component in components:
        if bench.quantizes:
            measured.append(_stage("quantize", [values, component], f"calibrate {component}"))
        measured.append(_stage("export", [values, component], f"export {component}"))
        measured.append(_stage("compile", [values, component], f"compile {PIECES[component]}"))
        shutil.rmtree(bench.graphs(component), ignore_errors=True)
    return measured


def _stage(stage: str, arguments: list[Any], label: str) -> Measured:
    measured = run_measured(label, stage, arguments)
    print(f"{label}: {measured.failure or 'done'}, {' | '.join(_cells(measured))}  {_notes(measured)}", flush=True)
    return measured


def _table(measured: Sequence[Measured]) -> str:
    header = ("stage", "seconds", "CPU seconds", "peak GiB", "of it not file pages", "written GiB")
    total = ("together", f"{sum(each.seconds for each in measured):.0f}", f"{sum(each.cpu_seconds for each in measured):.0f}")
    peaks = (max(each.peak_bytes for each in measured), max(each.peak_anonymous_bytes for each in measured))
    rows = [(each.label, *_cells(each)) for each in measured]
    return text_table(header, [*rows, (*total, *(f"{peak / GIB:.1f}" for peak in peaks), "")])


def _cells(measured: Measured) -> tuple[str, ...]:
    return (
        f"{measured.seconds:.0f}",
        f"{measured.cpu_seconds:.0f}",
        f"{measured.peak_bytes / GIB:.1f}",
        f"{measured.peak_anonymous_bytes / GIB:.1f}",
        f"{measured.facts.get('bytes', 0) / GIB:.2f}",
    )


def _notes(measured: Measured) -> str:
    return ", ".join(f"{name} {value}" for name, value in measured.facts.items() if name not in ("bytes", "checkpoint"))


def _verdict(measured: Sequence[Measured]) -> str:
    failed = [each.label for each in measured if each.failure]
    seconds, peak = sum(each.seconds for each in measured), max(each.peak_bytes for each in measured) / GIB
    kept = [
        f"completes: {'yes' if not failed else 'no (' + ', '.join(failed) + ')'}",
        f"within {GOAL_GIB} GiB: {'yes' if peak <= GOAL_GIB else 'no'}",
        f"within {GOAL_SECONDS // 60} minutes: {'yes' if seconds <= GOAL_SECONDS else 'no'}",
    ]
    return "; ".join(kept)


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


if __name__ == "__main__":
    main()
