"""The builder's output: `build.json` beside the model repository, and the one-line progress and result that a pod prints."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from diffusion_api.base import ApiModel
from diffusion_api.build_job import BuildJob
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.recipe import MonotoneTable, Recipe


class StageTiming(ApiModel):
    """What one stage cost."""

    name: str
    """Stage, for example `export`."""
    seconds: float
    """Wall-clock time; of the run that did the work, where the result was reused."""
    peak_memory_mib: float
    """Peak resident memory while it ran, in MiB."""
    reused: bool = False
    """True where the result was in the store already."""
    artifact: str | None = None
    """Folder name of the result in the store, which is dropped with the last engine that was made from it."""


class Latency(ApiModel):
    """Wall-clock time of one generation, all pieces, batch 1, in milliseconds."""

    median_ms: float
    """Median."""
    p95_ms: float
    """95th percentile."""
    repeats: int
    """Number of measured generations."""


class Comparison(ApiModel):
    """Optimized against unoptimized, measured in the same run on the same machine."""

    unoptimized: Latency
    """The checkpoint in torch, eager."""
    optimized: Latency
    """The compiled engine."""
    without_step_cache: Latency | None = None
    """The same recipe compiled without its step cache; None where it has none."""
    in_turns: bool = True
    """Whether they were timed in turns (A B A B …); else one after the other, because they do not fit into the memory together."""
    measured_on: str = ""
    """Processor or GPU that all ran on: the figures hold for it alone."""

    @property
    def speedup(self) -> float:
        """How many times faster the engine is."""
        return self.unoptimized.median_ms / self.optimized.median_ms

    @property
    def step_cache_gain(self) -> float | None:
        """Share of a generation's time that the step cache saves on the engine; None where there is none."""
        return None if self.without_step_cache is None else 1 - self.optimized.median_ms / self.without_step_cache.median_ms


class CandidateResult(ApiModel):
    """One recipe that the search looked at."""

    recipe: Recipe
    """The recipe."""
    label: str
    """The recipe in words."""
    quality: MeasuredQuality | None = None
    """Measured in torch, or None where it was not scored."""
    expected_speedup: float
    """Speed relative to the unquantized engine, as the search expects it."""
    within_budget: bool = False
    """Whether it holds the quality budget."""
    chosen: bool = False
    """Whether the engine was built from it."""
    simulated: bool = False
    """True where the accelerator has no kernel for the format, so that only its arithmetic is reproduced."""
    size_mib: float | None = None
    """Size of the transformer's weights in this recipe, in MiB."""
    note: str = ""
    """Why it was passed over."""


class PieceReport(ApiModel):
    """One graph."""

    name: str
    """Piece."""
    relative_error: float | None = None
    """‖graph − torch‖₂ / ‖torch‖₂ in the exported graph (of a BF16 graph, in the same graph in FP32); None: not measured."""
    parity_size: str = ""
    """Largest output size that it was measured at, for example `512x512`, which may be smaller than what is served; empty: not measured."""
    onnx_mib: float
    """Size of the exported file with its weights, in MiB."""
    compiled_mib: float
    """Size of the compiled file, in MiB."""
    compile_seconds: float
    """Compile time, in seconds."""


class CacheCalibration(ApiModel):
    """How the step cache was fitted."""

    table: MonotoneTable | None = None
    """The fitted curve."""
    pairs: tuple[tuple[float, float], ...] = ()
    """A sample of the fitted pairs (indicator change, residual change), for the plot."""
    sweep: tuple[tuple[float, float, float], ...] = ()
    """Per threshold: (threshold, share of steps skipped, PSNR in dB)."""
    masks: tuple[tuple[str, float, float], ...] = ()
    """Per mask: (1 for each computed step and 0 for each skipped one, share of steps skipped, PSNR in dB)."""
    decision: str = ""
    """What was decided, and why."""


class BuildReport(ApiModel):
    """`build.json`."""

    format_version: Literal[1] = 1
    """Version of this file."""
    engine_key: str
    """The engine key."""
    job: BuildJob
    """The job as it was run."""
    resolved_revision: str
    """Commit or digest of the checkpoint."""
    family: str
    """Family of the model."""
    recipe: Recipe
    """The recipe of the engine."""
    simulated: bool
    """True where the engine only reproduces the arithmetic of a format that the accelerator has no kernel for."""
    verified_on_engine: bool
    """True where quality was measured on the compiled engine; False where on the quantized model in torch."""
    quality: MeasuredQuality
    """Quality of the engine."""
    rerun_psnr: float | None = None
    """Noise floor: PSNR in dB between two equal runs of the unoptimized model; 100 where they are equal."""
    comparison: Comparison | None = None
    """Speed; None where the engine cannot run on the machine that built it."""
    unoptimized_mib: float
    """Size of the checkpoint's weights, in MiB."""
    optimized_mib: float
    """Size of the compiled pieces, in MiB."""
    candidates: tuple[CandidateResult, ...] = ()
    """The frontier."""
    step_cache: CacheCalibration = CacheCalibration()
    """How the step cache was fitted."""
    pieces: tuple[PieceReport, ...] = ()
    """The graphs."""
    stages: tuple[StageTiming, ...] = ()
    """What each stage cost."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of what built it, for example `{"torch": "2.15.0"}`."""
    warnings: tuple[str, ...] = ()
    """What a reader should know before trusting this engine."""
    started_at: datetime
    """When the build began."""
    finished_at: datetime
    """When it ended."""
    checksums: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every file of the package, by relative path."""
