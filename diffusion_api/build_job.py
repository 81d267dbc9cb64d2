"""The builder's input: everything that decides an engine, and nothing about serving."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from diffusion_api.accelerator import Accelerator
from diffusion_api.base import API_VERSION, ApiModel
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_api.model_spec import ModelSource, Shape
from diffusion_api.optimization import Optimization


class Verification(StrEnum):
    """What the quality gate measures before an engine is published."""

    ENGINE = "Engine"  # The compiled engine itself, on its accelerator.
    SIMULATED = "Simulated"  # The quantized model in torch: for building an engine ahead on a machine that cannot run it.


class BuildJob(ApiModel):
    """The job file of `python -m engine_builder build JOB.yaml --store DIR`."""

    api_version: Literal["diffusionoperator.io/v1alpha1"] = API_VERSION
    """Version of this schema."""
    kind: Literal["BuildJob"] = "BuildJob"
    """Kind of this file."""
    model: ModelSource
    """The checkpoint."""
    shapes: tuple[Shape, ...] = Field(min_length=1, max_length=16)
    """Output sizes."""
    optimization: Optimization = Optimization()
    """How far the model may be changed."""
    accelerator: Accelerator
    """What the engine is compiled for."""
    max_batch_size: int = Field(default=8, ge=1, le=64)
    """Largest batch of the engine's optimization profile."""
    verification: Verification = Verification.ENGINE
    """What the quality gate measures."""


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
