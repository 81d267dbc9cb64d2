"""Which engine a deployment needs: its name, its key and its spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_api.accelerator import Compiler
from diffusion_api.build_job import BuildJob, BuildSpec, build_job_for
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_api.engine import DiffusionEngine, DiffusionEngineSpec
from diffusion_api.engine_key import engine_key, engine_name, prompts_digest
from diffusion_api.optimization import PromptsConfigMap
from diffusion_operator.settings import OperatorSettings

PROMPTS_SECONDS = 30.0
"""A missing ConfigMap is looked for so often: ConfigMaps are not watched, for most of a cluster's are no business of the operator."""
UNPINNED = "unpinned"
"""Stands for the revision of a model whose spec names none."""


@dataclass(frozen=True)
class EngineIdentity:
    """An engine that may or may not exist."""

    name: str
    key: str
    spec: DiffusionEngineSpec


def engine_identity(spec: DiffusionDeploymentSpec, prompts: Sequence[str] | None, settings: OperatorSettings) -> EngineIdentity:
    """Return the engine that a deployment needs.

    The builder resolves a moving revision and keys its files by what it found; this key takes the name as it is written, so that a
    deployment whose spec stays keeps its engine. Nor does a new builder image change it: `versions.builder` does.

    Args:
        spec: The deployment's.
        prompts: Those of the ConfigMap, where the spec names one. They go into the engine, which later changes of the ConfigMap must
            not change.
        settings: The operator's.
    """
    job = build_job_for(spec)
    if spec.optimization.calibration.prompts_config_map is not None:
        job = with_prompts(job, tuple(prompts or ()))
    key = spec_key(job, settings)
    engine_spec = DiffusionEngineSpec(**{name: getattr(job, name) for name in BuildSpec.model_fields})
    return EngineIdentity(engine_name(key), key, engine_spec)


def kept_prompts(spec: DiffusionDeploymentSpec, engine: DiffusionEngine, settings: OperatorSettings) -> tuple[str, ...] | None:
    """The prompts of a ConfigMap that is gone, from the engine that was made with them; None where the spec asks for another engine.

    Another key alone, as of another compiler, is no other spec: the next engine is made with the same prompts.
    """
    prompts = engine.spec.optimization.calibration.prompts
    return prompts if prompts and engine_identity(spec, prompts, settings).spec == engine.spec else None


def with_prompts(job: BuildJob, prompts: tuple[str, ...]) -> BuildJob:
    """Put prompts in the place of the ConfigMap that a job names."""
    calibration = job.optimization.calibration.model_copy(update={"prompts": prompts, "prompts_config_map": None})
    return job.model_copy(update={"optimization": job.optimization.model_copy(update={"calibration": calibration})})


def prompts_missing(named: PromptsConfigMap) -> str:
    """Say which ConfigMap to make."""
    return f"ConfigMap {named.name} has no prompts under the key {named.key}; create it, with one prompt a line"


def spec_key(job: BuildJob, settings: OperatorSettings) -> str:
    """The engine key of a job whose prompts are in it, as the operator counts."""
    return engine_key(
        job,
        resolved_revision=job.model.revision or UNPINNED,
        prompts_digest=prompts_digest(job.optimization.calibration.prompts or ()),
        compiler_version=compiler_version(job.accelerator.resolved_compiler, settings),
        builder=settings.versions.builder,
    )


def compiler_version(compiler: Compiler, settings: OperatorSettings) -> str:
    """Full version of a compiler in the builder image."""
    match compiler:
        case Compiler.TENSORRT:
            return settings.versions.tensorrt
        case Compiler.TENSORRT_RTX:
            return settings.versions.tensorrt_rtx
        case Compiler.OPENVINO:
            return settings.versions.openvino
