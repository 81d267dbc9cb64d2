"""Why an engine is not in the store: what of the engine key's inputs differs from the nearest engine that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diffusion_api.accelerator import Compiler
from diffusion_api.build_job import BuildJob
from diffusion_api.build_report import BuildReport
from diffusion_api.engine_key import engine_name, job_inputs, prompts_digest
from engine_builder.build import ENGINE_STAGE, BuiltEngine, EnginePlan, read_engine
from engine_builder.stage_runner import TOOLS, tool_versions
from engine_builder.store import Store

COMPILER_PACKAGES = {Compiler.OPENVINO: "openvino", Compiler.TENSORRT: "tensorrt", Compiler.TENSORRT_RTX: "tensorrt-rtx-cu13"}
UNRECORDED = (
    "its build.json records nothing that differs; what it does not record are the versions of the builder's stages, whether the CPU "
    "computes BF16, and the digests of the weights of a student, LPIPS and CLIP"
)


@dataclass(frozen=True)
class Difference:
    """One input of the engine key that two engines do not share."""

    field: str
    """For example `optimization.qualityBudget.minPSNR`, or `torch version`."""
    stored: object
    """In the engine that is there; None where it is unset."""
    wanted: object
    """In the one that is asked for."""

    def __str__(self) -> str:
        """`optimization.qualityBudget.minPSNR: 35.0 there, 40.0 here`."""
        return f"{self.field}: {_words(self.stored)} there, {_words(self.wanted)} here"


@dataclass(frozen=True)
class NearestEngine:
    """The engine of the same model that differs in the fewest inputs."""

    name: str
    """Folder name in the store."""
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        """Say it in one line, or in one a difference."""
        nearest = f"the nearest engine of this model in the store is {self.name}"
        if not self.differences:
            return f"{nearest}; {UNRECORDED}"
        return "\n".join((f"{nearest}, which differs in", *(f"  {difference}" for difference in self.differences)))


def nearest_engine(plan: EnginePlan, store: Store) -> NearestEngine | None:
    """Return the engine that differs least; of equals, the one that was built last; None where none is of the same model.

    Only what `build.json` records is compared.
    """
    found = []
    for engine in _engines_of_model(plan, store):
        differences = tuple(_differences(plan, engine.report))
        found.append((len(differences), -engine.report.finished_at.timestamp(), NearestEngine(engine.path.name, differences)))
    return min(found, key=lambda each: each[:2])[2] if found else None


def _engines_of_model(plan: EnginePlan, store: Store) -> Iterator[BuiltEngine]:
    for path in sorted((store.root / "artifacts").glob(f"{ENGINE_STAGE}-*")):
        if path.suffix == ".partial" or path.name == engine_name(plan.engine_key):
            continue
        try:
            engine = read_engine(path, reused=True)
        except (OSError, ValueError):
            continue  # Unreadable: it counts as not built, and there is nothing to compare with.
        if engine.report.job.model.uri == plan.job.model.uri or engine.report.resolved_revision == plan.revision:
            yield engine


def _differences(plan: EnginePlan, report: BuildReport) -> Iterator[Difference]:
    packages = sorted({*(name for names in TOOLS.values() for name in names), COMPILER_PACKAGES[plan.job.accelerator.resolved_compiler]})
    here = tool_versions(tuple(packages))
    wanted = {**_inputs(plan.job, plan.revision), **{f"{name} version": here.get(name) for name in packages}}
    stored = {**_inputs(report.job, report.resolved_revision), **{f"{name} version": report.versions.get(name) for name in packages}}
    for field in sorted(wanted.keys() | stored.keys()):
        if wanted.get(field) != stored.get(field):
            yield Difference(field, stored.get(field), wanted.get(field))


def _inputs(job: BuildJob, revision: str) -> dict[str, object]:
    """Flatten what of a job decides the key; `quantization` has the format with all that is filled in, so it is named once."""
    inputs = dict(job_inputs(job))
    flat = dict(_flat(inputs.pop("job"))) | dict(_flat(inputs))
    flat.pop("optimization.quantization.format", None)
    prompts = prompts_digest(job.optimization.calibration.prompts or ())[:12]
    return {**flat, "model.revision": revision, "digest of calibration.prompts": prompts}


def _flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _words(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return " ".join(_words(each) for each in value if each is not None)
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    return str(value)
