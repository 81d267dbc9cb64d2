"""The builder's input: everything that decides an engine, and nothing about serving."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from diffusion_api.accelerator import Accelerator
from diffusion_api.base import API_VERSION, ApiModel, cel_rules
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_api.model_spec import ModelSource, Shapes
from diffusion_api.optimization import MASK_LENGTH_RULE, Optimization, check_mask


class Verification(StrEnum):
    """What the quality gate measures before an engine is published."""

    ENGINE = "Engine"  # The compiled engine itself, on its accelerator.
    SIMULATED = "Simulated"  # The quantized model in torch: for building an engine ahead on a machine that cannot run it.


class BuildSpec(ApiModel):
    """Everything that a user or a deployment says about an engine."""

    model_config = ConfigDict(json_schema_extra=cel_rules(MASK_LENGTH_RULE))

    model: ModelSource
    """The checkpoint."""
    shapes: Shapes
    """Output sizes."""
    optimization: Optimization = Optimization()
    """How far the model may be changed."""
    accelerator: Accelerator
    """What the engine is compiled for."""
    max_batch_size: int = Field(default=8, ge=1, le=64)
    """Largest batch of the engine's optimization profile."""
    verification: Verification = Verification.ENGINE
    """What the quality gate measures: the compiled engine, or, where it cannot run on the building machine, the model in torch."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_mask(self.model.sampling, self.optimization.step_cache)
        return self


class BuildJob(BuildSpec):
    """The job file of `python -m engine_builder build JOB.yaml --store DIR`."""

    api_version: Literal["diffusionoperator.io/v1alpha1"] = API_VERSION
    """Version of this schema."""
    kind: Literal["BuildJob"] = "BuildJob"
    """Kind of this file."""


def build_job_for(spec: DiffusionDeploymentSpec, *, verification: Verification = Verification.ENGINE) -> BuildJob:
    """Take from a deployment what its engine depends on."""
    return BuildJob(
        model=spec.model,
        shapes=spec.shapes,
        optimization=spec.optimization,
        accelerator=spec.accelerator,
        max_batch_size=spec.serving.max_batch_size,
        verification=verification,
    )
