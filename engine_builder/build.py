"""Builds an engine, or finds it: the key is computed and looked up before anything heavy is imported or downloaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffusion_api.build_job import BuildJob, Verification
from diffusion_api.build_report import BuildReport
from diffusion_api.checks import require_workable
from diffusion_api.engine_key import engine_key, prompts_digest
from diffusion_api.model_spec import ModelSource
from diffusion_api.problems import InvalidSpecError
from engine_builder.compilers import compiler_for
from engine_builder.compilers.gpu import check_gpu
from engine_builder.compilers.openvino import capabilities
from engine_builder.errors import InvalidJobError, UnsupportedTargetError
from engine_builder.fetch import resolve_revision
from engine_builder.planning import Candidate, candidates
from engine_builder.progress import BuildProgress, SilentProgress
from engine_builder.quiet_imports import quiet_imports
from engine_builder.stage_runner import STAGE_VERSIONS, TOOLS
from engine_builder.store import Store, digest_of

ENGINE_STAGE = "engine"
REPORT_FILE = "build.json"
NVIDIA_DEVICE = Path("/dev/nvidiactl")
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltEngine:
    """A published engine."""

    path: Path
    """Folder with `model_repository/`, `build.json` and `report.html`; do not write to it."""
    report: BuildReport
    reused: bool


@dataclass(frozen=True)
class EnginePlan:
    """What a build would do."""

    job: BuildJob
    engine_key: str
    revision: str
    """Commit or digest of the checkpoint."""
    student_revision: str | None
    compiler: str
    """Name and full version."""
    published: Path | None
    """The engine, where it is in the store already."""
    candidates: tuple[Candidate, ...]
    """The recipes, in the order they are tried."""
    instruction_set: str | None
    """`bf16` where a CPU's engine is written for one that computes BF16; None elsewhere."""
    metric_revisions: Mapping[str, str] = field(default_factory=dict)
    """Commit or digest of what measures LPIPS and CLIP, by `lpips` and `clip`, where the quality budget limits them."""

    def to_json(self) -> dict[str, object]:
        """Return what `diffusionctl plan --json` prints."""
        return {
            "engineKey": self.engine_key,
            "revision": self.revision,
            "compiler": self.compiler,
            "published": str(self.published) if self.published else None,
            "recipes": [
                {
                    "recipe": candidate.recipe.to_wire(),
                    "label": candidate.recipe.label,
                    "expectedSpeedup": candidate.expected_speedup,
                    "simulated": candidate.simulated,
                }
                for candidate in self.candidates
            ],
        }


@dataclass(frozen=True)
class BuildSettings:
    """What a build needs besides the job; none of it decides the engine."""

    base_folder: Path = field(default_factory=Path.cwd)
    """What relative `file://` paths start from."""
    credentials: Mapping[str, str] = field(default_factory=dict)
    """Keys and values of the secret that the job names, for example `token`."""
    hash_reused: bool = False
    """Hash every file of an engine that is in the store, instead of comparing sizes: a pod that found it damaged asks for it anew."""


def plan_engine(job: BuildJob, store: Store, settings: BuildSettings | None = None) -> EnginePlan:
    """Say what a build would do; reads the checkpoint's revision, downloads nothing.

    Raises:
        InvalidJobError: the job asks for what cannot be done (each field is named), such as a format that its GPU has no kernels for, or
            a search without a budget; or the checkpoint or its revision does not exist, or needs credentials.
        UnsupportedTargetError: the compiler is not installed, or cannot compile for the accelerator.
    """
    settings = settings or BuildSettings()
    _require_workable(job)
    if job.optimization.calibration.prompts_config_map is not None:
        raise InvalidJobError(
            "calibration.promptsConfigMap is in a cluster, and the builder reads none; write the prompts into calibration.prompts"
        )
    recipes = candidates(job)
    compiler = compiler_for(job.accelerator)
    revision = resolve_revision(job.model, base_folder=settings.base_folder, credentials=settings.credentials)
    metrics = _metric_revisions(job, settings)
    student = None
    if job.model.student is not None:
        source = job.model.model_copy(update={"uri": job.model.student.uri, "revision": None, "student": None})
        student = resolve_revision(source, base_folder=settings.base_folder, credentials=settings.credentials)
    key = engine_key(
        job,
        resolved_revision=revision,
        prompts_digest=prompts_digest(job.optimization.calibration.prompts or ()),
        compiler_version=compiler.version(),
        builder=builder_version(),
        student_digest=student,
        instruction_set=(instructions := instruction_set(job)),
        builder_flags={**compiler.settings(), **{f"{name}Revision": found for name, found in metrics.items()}},
    )
    name = f"{compiler.name} {compiler.version()}"
    return EnginePlan(job, key, revision, student, name, _published(store, key, full=settings.hash_reused), recipes, instructions, metrics)


def _require_workable(job: BuildJob) -> None:
    try:
        require_workable(job, root="")
    except InvalidSpecError as error:
        raise InvalidJobError(str(error)) from None


def instruction_set(job: BuildJob) -> str | None:
    """Return what of this CPU is written into an engine: whether its pieces are to be computed in BF16, which AMX and AVX512-BF16 do.

    Nothing else of it is. OpenVINO's files are a graph with its weights; kernels for AVX2, VNNI or AMX are chosen when a server loads it.
    """
    return "bf16" if job.accelerator.is_cpu and "BF16" in capabilities() else None


def metric_uris(job: BuildJob) -> dict[str, str]:
    """Return where the weights of LPIPS and CLIP lie, by `lpips` and `clip`, where the quality budget limits them."""
    budget = job.optimization.quality_budget
    return {name: uri for name, uri in (("lpips", budget.lpips_uri), ("clip", budget.clip_uri)) if uri is not None}


def _metric_revisions(job: BuildJob, settings: BuildSettings) -> dict[str, str]:
    return {
        name: resolve_revision(ModelSource(uri=uri), base_folder=settings.base_folder, credentials=settings.credentials)
        for name, uri in metric_uris(job).items()
    }


def require_target(job: BuildJob) -> None:
    """Check, before anything is downloaded, that this machine can compile for the accelerator and verify on it.

    Raises:
        UnsupportedTargetError: it cannot; the message says what to change.
    """
    formats = {part.format for candidate in candidates(job) for part in candidate.recipe.components.values()}
    compiler_for(job.accelerator).check(job.accelerator, formats)
    if job.verification is not Verification.ENGINE or job.accelerator.is_cpu:
        return
    if not NVIDIA_DEVICE.exists():
        raise UnsupportedTargetError(
            "quality is verified on the engine itself, and this machine has no NVIDIA GPU: build on a node with "
            f"{job.accelerator.product}, or check quality in torch alone with verification: Simulated "
            "(diffusionctl build --simulate-verification)"
        )
    check_gpu(job.accelerator)


def builder_version() -> str:
    """Return what of this package decides an engine's bits: its version, its stages' versions, and those of what computes them.

    Raises:
        UnsupportedTargetError: the builder's packages are not installed.
    """
    try:
        packages = {name: version(name) for name in sorted({name for names in TOOLS.values() for name in names})}
    except PackageNotFoundError as error:
        raise UnsupportedTargetError(f"{error.name} is missing; `pip install diffusion-operator[builder]`") from None
    return f"{version('diffusion-operator')}+{digest_of(STAGE_VERSIONS, packages)[:12]}"


def find_engine(job: BuildJob, store: Store, settings: BuildSettings | None = None) -> BuiltEngine | None:
    """Return the engine of a job where it is in the store."""
    published = plan_engine(job, store, settings).published
    return read_engine(published, reused=True) if published else None


def read_engine(path: Path, *, reused: bool) -> BuiltEngine:
    """Read a published engine's report.

    Raises:
        ValueError: `build.json` is damaged, or has fields of another version; the message says where.
        OSError: It is not there.
    """
    return BuiltEngine(path, BuildReport.model_validate(json.loads((path / REPORT_FILE).read_bytes())), reused)


def _published(store: Store, key: str, *, full: bool = False) -> Path | None:
    """Return a sound engine whose report can be read; what cannot be is not there, and the next build makes it anew."""
    path = store.find(ENGINE_STAGE, key, full=full)
    if path is None:
        return None
    try:
        read_engine(path, reused=True)
    except (OSError, ValueError) as error:  # Pydantic's and JSON's errors are ValueErrors.
        reason = " ".join(str(error).split())[:300]
        LOGGER.warning("%s cannot be read, so this engine counts as not built: %s", path / REPORT_FILE, reason)
        return None
    return path


def build_engine(
    job: BuildJob, store: Store, settings: BuildSettings | None = None, *, progress: BuildProgress | None = None
) -> BuiltEngine:
    """Build a job's engine, or reuse it; a killed build goes on where it stopped, and of two builders of one key one waits.

    Raises:
        BuildError: see `engine_builder.errors`; nothing is published.
    """
    settings, progress = settings or BuildSettings(), progress or SilentProgress()
    plan = plan_engine(job, store, settings)
    if plan.published is None:
        require_target(job)
        with store.lock(plan.engine_key, lambda holder: progress.message(f"{holder} builds this engine already; waiting for it")):
            if _published(store, plan.engine_key) is None:
                if store.has(ENGINE_STAGE, plan.engine_key):
                    aside = store.set_aside(store.path(ENGINE_STAGE, plan.engine_key))
                    progress.message(f"the engine in the store has no readable {REPORT_FILE}: it lies in {aside} now, and is built anew")
                return read_engine(_run_workflow(plan, store, settings, progress), reused=False)
    progress.message(f"engine {plan.engine_key[:16]} is in the store")
    return read_engine(store.path(ENGINE_STAGE, plan.engine_key), reused=True)


def _run_workflow(plan: EnginePlan, store: Store, settings: BuildSettings, progress: BuildProgress) -> Path:
    """Import torch, which takes seconds and only a build needs, and build."""
    with quiet_imports():
        from engine_builder.workflow import run_workflow  # noqa: PLC0415
    return run_workflow(plan, store, settings, progress)
