"""`DiffusionDeployment`: what a user applies."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from diffusion_api.accelerator import Accelerator
from diffusion_api.base import API_VERSION, ApiModel
from diffusion_api.conditions import Condition
from diffusion_api.model_spec import ModelSource, Shape
from diffusion_api.optimization import Optimization
from diffusion_api.serving import Autoscaling, Rollout, Serving


class ObjectMeta(ApiModel):
    """The part of Kubernetes' ObjectMeta that this project reads; the rest is accepted."""

    model_config = ConfigDict(**{**ApiModel.model_config, "extra": "allow"})

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)
    """A DNS label; at most 52 characters, for names of children are made from it."""
    namespace: str | None = None
    """Namespace of the object."""
    generation: int = 0
    """Generation of the spec, counted by the API server."""
    uid: str | None = None
    """Unique id, given by the API server."""


class DiffusionDeploymentSpec(ApiModel):
    """What to serve, how good the pictures must stay, and on which GPU."""

    model: ModelSource
    """The checkpoint."""
    shapes: tuple[Shape, ...] = Field(default=(Shape(width=1024, height=1024),), min_length=1, max_length=16)
    """Output sizes that are served."""
    optimization: Optimization = Optimization()
    """How far the model may be changed to be faster."""
    accelerator: Accelerator
    """Where it runs."""
    serving: Serving = Serving()
    """The serving pods."""
    autoscaling: Autoscaling = Autoscaling()
    """Their number."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the old one."""

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        names = [shape.name for shape in self.shapes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"shapes lists {', '.join(twice)} twice; leave one out")
        return self


class EngineStatus(ApiModel):
    """The engine that a deployment uses."""

    name: str
    """Name of the DiffusionEngine."""
    key: str
    """Its engine key."""
    reused: bool = False
    """True where it was there already."""


class MeasuredQuality(ApiModel):
    """Quality of the served engine against the unoptimized model; means over the calibration prompts."""

    psnr: float | None = None
    """Peak signal-to-noise ratio in dB."""
    ssim: float | None = None
    """Structural similarity."""
    flip: float | None = None
    """NVIDIA's FLIP."""
    lpips: float | None = None
    """LPIPS."""
    clip_drop: float | None = None
    """Fall of the mean CLIP score."""


class DiffusionDeploymentStatus(ApiModel):
    """What the operator observed."""

    observed_generation: int | None = None
    """Generation of the spec that this status belongs to."""
    conditions: tuple[Condition, ...] = ()
    """Observed states."""
    engine: EngineStatus | None = None
    """The engine in use."""
    recipe: str | None = None
    """The recipe in use, for example `INT8 SmoothQuant, no step cache`."""
    quality: MeasuredQuality | None = None
    """Quality measured against the unoptimized model."""
    quality_summary: str | None = None
    """Quality against budget in a few words, for example `41.2 dB (≥ 35)`."""
    latency_milliseconds: float | None = None
    """Median latency of one picture, measured by the build."""
    replicas: int = 0
    """Serving pods."""
    ready_replicas: int = 0
    """Serving pods that are ready."""
    updated_replicas: int = 0
    """Serving pods of the current revision."""
    selector: str | None = None
    """Label selector of the serving pods, for the scale subresource."""
    serving_revision: str | None = None
    """Revision that receives the traffic."""
    last_good_revision: str | None = None
    """Revision that was last seen serving well."""


class DiffusionDeployment(ApiModel):
    """Serves an optimized diffusion model at a stated quality."""

    api_version: Literal["diffusionoperator.io/v1alpha1"] = API_VERSION
    """Version of this schema."""
    kind: Literal["DiffusionDeployment"] = "DiffusionDeployment"
    """Kind of this object."""
    metadata: ObjectMeta
    """Name, namespace, labels and annotations."""
    spec: DiffusionDeploymentSpec
    """What is wanted."""
    status: DiffusionDeploymentStatus | None = None
    """What is observed."""
