"""`diffusionctl build`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffusion_api.build_report import BuildReport
from diffusionctl.files import job_of_file
from engine_builder.build import BuildSettings, BuiltEngine, build_engine
from engine_builder.progress import RichProgress
from engine_builder.report import words
from engine_builder.store import Store


def build_file(file: Path, store_folder: Path, *, simulate: bool, as_json: bool) -> BuiltEngine:
    """Build a file's engine with progress on standard error; print where it is on standard output."""
    job = job_of_file(file, simulate=simulate)
    console = Console(stderr=True, highlight=False)
    with RichProgress(console).live() as progress:
        engine = build_engine(job, Store(store_folder), BuildSettings(base_folder=file.parent), progress=progress)
    if as_json:
        print(json.dumps({"path": str(engine.path), "reused": engine.reused, "report": engine.report.to_wire()}))
    else:
        summary(engine, Console(highlight=False))
    return engine


def summary(engine: BuiltEngine, console: Console) -> None:
    """Print recipe, speed, quality, size and where the report is."""
    report = engine.report
    console.print(f"engine {report.engine_key[:16]} ({'reused' if engine.reused else 'built'}): [bold]{report.recipe.label}[/]")
    if report.simulated:
        console.print("[yellow]simulated: this accelerator has no kernels for the format, so only its arithmetic is reproduced[/]")
    if not report.verified_on_engine:
        console.print("[yellow]not verified on the engine: quality was measured on the quantized model in torch[/]")
    console.print(_comparison(report))
    console.print(f"[dim]{escape(_legend(report))}[/]", soft_wrap=True)
    console.print(f"models  {engine.path / 'model_repository'}\nreport  {engine.path / 'report.html'}", soft_wrap=True)


def _comparison(report: BuildReport) -> Table:
    table = Table("", "time of a picture", "PSNR", words.size_name(report), box=None, pad_edge=False)
    speed = report.comparison
    slow, fast = (words.milliseconds(latency.median_ms) for latency in (speed.unoptimized, speed.optimized)) if speed else ("–", "–")
    table.add_row("unoptimized, in torch", slow, "–", words.mebibytes(report.unoptimized_mib))
    table.add_row("optimized", fast, words.psnr(report.quality), words.mebibytes(report.optimized_mib))
    return table


def _legend(report: BuildReport) -> str:
    """Say in words what the table compares."""
    speed = report.comparison
    place = (speed.measured_on if speed else "") or "the machine that built it"
    times = f"Time: median of {speed.optimized.repeats}, both in one run on {place}. " if speed else ""
    return f"{times}PSNR: against the unoptimized model's pictures, same prompts and noise. {words.size_meaning(report)}"
