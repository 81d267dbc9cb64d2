"""`DiffusionEngine`: one build result, named after its engine key and shared by every deployment with that key.

Users may create one to build ahead of time. Its spec never changes: another wish is another engine.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from diffusion_api.base import API_VERSION, ApiModel, CelRule, StatusModel, cel_rules
from diffusion_api.build_job import BuildJob, BuildSpec
from diffusion_api.build_report import BuildReport, Latency
from diffusion_api.conditions import CONDITION_LIST, Condition
from diffusion_api.deployment import NAME_RULES, MeasuredQuality, ObjectMeta
from diffusion_api.optimization import StepCachePolicy
from diffusion_api.recipe import ComponentRecipe, Precision

MOST_WARNINGS = 64
IMMUTABLE_SENTENCE = "spec never changes: an engine is what it was built from; create another DiffusionEngine instead"


class DiffusionEngineSpec(BuildSpec):
    """What to build, and with which builder."""

    resolved_revision: str | None = Field(default=None, min_length=1, max_length=256)
    """Commit or digest that `model.revision` stands for. Unset: resolved when the build begins, and recorded in status."""
    builder_image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Image that builds, with its digest: `registry.example/builder@sha256:…`. Unset: the operator's own."""

    @property
    def job(self) -> BuildJob:
        """The job file for the builder."""
        job = BuildJob(**{name: getattr(self, name) for name in BuildSpec.model_fields})
        if self.resolved_revision is None:
            return job
        return job.model_copy(update={"model": job.model.model_copy(update={"revision": self.resolved_revision})})


class BuildProgress(StatusModel):
    """How far the build is."""

    stage: str = Field(max_length=63)
    """Stage that runs, for example `export`."""
    percent: int = Field(default=0, ge=0, le=100)
    """Share of the whole build that is done, in percent."""
    message: str = Field(default="", max_length=1024)
    """What it does, for people."""


class BuildFailure(StatusModel):
    """Why the last attempt failed."""

    message: str = Field(max_length=4096)
    """One sentence: what failed and what to change."""
    exit_code: int | None = Field(default=None, ge=0, le=255)
    """Exit code of the builder, from sysexits.h: 64 bad job, 65 bad model, 69 no such accelerator, 75 try again."""
    retryable: bool = False
    """Whether another attempt with the same spec can succeed."""
    log_tail: str = Field(default="", max_length=16_384)
    """Last lines of the builder's log."""


class RecipeSummary(StatusModel):
    """The recipe that was chosen."""

    label: str = Field(max_length=1024)
    """In words, for example `INT8 SmoothQuant + BF16, no step cache`."""
    components: dict[str, ComponentRecipe] = Field(default_factory=dict, max_length=16)
    """Number format by component; unnamed ones are unquantized."""
    precision: Precision = Precision.BF16
    """Floating-point type of everything that is not quantized."""
    step_cache: StepCachePolicy = StepCachePolicy.NONE
    """Policy of the step cache. Its table is in the engine itself."""


class EngineResult(StatusModel):
    """What the build yielded."""

    artifact: str = Field(max_length=2048)
    """Where the model repository lies: path below the engine store, or address."""
    family: str = Field(max_length=63)
    """Family of the model, for example `flux2-klein`."""
    resolved_revision: str = Field(max_length=256)
    """Commit or digest of the checkpoint."""
    recipe: RecipeSummary
    """The recipe that was chosen."""
    quality: MeasuredQuality
    """Quality against the unoptimized model."""
    quality_summary: str | None = Field(default=None, max_length=256)
    """Quality against budget in a few words, for example `41.2 dB (≥ 35)`."""
    latency: Latency | None = None
    """Wall-clock time of one generation; unset where the engine cannot run on the machine that built it."""
    unoptimized_latency: Latency | None = None
    """The same of the unoptimized model, measured in the same run."""
    size_mib: float = Field(ge=0)
    """Size of the compiled pieces, in MiB."""
    simulated: bool = False
    """True where the engine only reproduces the arithmetic of a format that the accelerator has no kernel for."""
    verified_on_engine: bool
    """True where quality was measured on the compiled engine; false where on the quantized model in torch."""
    warnings: tuple[str, ...] = Field(default=(), max_length=MOST_WARNINGS)
    """What a reader should know before trusting this engine."""


class DiffusionEngineStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int | None = Field(default=None, ge=0)
    """Generation of the spec that this status belongs to."""
    phase: str | None = Field(default=None, max_length=256)
    """The state in a few words, for people, for example `Building: export, 60 %`; programs read `conditions`."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=CONDITION_LIST)
    """Observed states."""
    key: str | None = Field(default=None, max_length=64)
    """The engine key: SHA-256 of everything that decides the engine."""
    job_name: str | None = Field(default=None, max_length=63)
    """Job that builds it."""
    attempts: int = Field(default=0, ge=0)
    """Builder pods that were started."""
    started_at: datetime | None = None
    """When the build began."""
    finished_at: datetime | None = None
    """When it ended."""
    losses: int = Field(default=0, ge=0)
    """Times in a row that its files were found gone within a day of their build; after three it is not built again by itself."""
    progress: BuildProgress | None = None
    """How far the build is; unset when none runs."""
    failure: BuildFailure | None = None
    """Why the last attempt failed; unset after a success."""
    result: EngineResult | None = None
    """What the build yielded; unset until it has."""
    users: int = Field(default=0, ge=0)
    """Deployments that use this engine."""
    unused_since: datetime | None = None
    """Since when no deployment uses it; retention counts from here."""


class DiffusionEngine(ApiModel):
    """One optimized, compiled and measured engine, shared by every deployment that needs exactly it."""

    model_config = ConfigDict(json_schema_extra=cel_rules(*NAME_RULES))

    api_version: Literal["diffusionoperator.io/v1alpha1"] = API_VERSION
    """Version of this schema."""
    kind: Literal["DiffusionEngine"] = "DiffusionEngine"
    """Kind of this object."""
    metadata: ObjectMeta
    """Name, namespace, labels and annotations."""
    spec: DiffusionEngineSpec = Field(json_schema_extra=cel_rules(CelRule("self == oldSelf", IMMUTABLE_SENTENCE)))
    """What to build. Never changes."""
    status: DiffusionEngineStatus | None = None
    """What is observed."""


def engine_result(report: BuildReport, *, artifact: str, quality_summary: str | None = None) -> EngineResult:
    """Summarize a build report for the engine's status; `artifact` is where the model repository lies."""
    recipe = report.recipe
    return EngineResult(
        artifact=artifact,
        family=report.family,
        resolved_revision=report.resolved_revision,
        recipe=RecipeSummary(
            label=recipe.label, components=recipe.components, precision=recipe.precision, step_cache=recipe.step_cache.policy
        ),
        quality=report.quality,
        quality_summary=quality_summary,
        latency=_rounded(report.comparison.optimized) if report.comparison else None,
        unoptimized_latency=_rounded(report.comparison.unoptimized) if report.comparison else None,
        size_mib=report.optimized_mib,
        simulated=report.simulated,
        verified_on_engine=report.verified_on_engine,
        warnings=report.warnings[:MOST_WARNINGS],
    )


def _rounded(latency: Latency) -> Latency:
    """To a tenth of a millisecond: people read a status, and the report keeps every digit."""
    return latency.model_copy(update={"median_ms": round(latency.median_ms, 1), "p95_ms": round(latency.p95_ms, 1)})
