"""`diffusionctl build`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusion_api.build_report import BuildReport
from diffusionctl.files import job_of_file
from engine_builder.build import BuildSettings, BuiltEngine, build_engine
from engine_builder.progress import RichProgress
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
    console.print(f"models  {engine.path / 'model_repository'}\nreport  {engine.path / 'report.html'}", soft_wrap=True)


def _comparison(report: BuildReport) -> Table:
    table = Table("", "latency (median)", "PSNR", "size", box=None, pad_edge=False)
    speed = report.comparison
    slow, fast = (f"{speed.unoptimized.median_ms:.1f} ms", f"{speed.optimized.median_ms:.1f} ms") if speed else ("–", "–")
    psnr = report.quality.psnr
    table.add_row("unoptimized", slow, "–", f"{report.unoptimized_mib:.1f} MiB")
    table.add_row("optimized", fast, f"{psnr:.1f} dB" if psnr is not None else "–", f"{report.optimized_mib:.1f} MiB")
    return table
