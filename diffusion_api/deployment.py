"""`DiffusionDeployment`: what a user applies."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from diffusion_api.accelerator import Accelerator
from diffusion_api.base import API_VERSION, DNS_LABEL_PATTERN, ApiModel, CelRule, StatusModel, cel_rules
from diffusion_api.conditions import CONDITION_LIST, Condition
from diffusion_api.model_spec import ModelSource, Shape, Shapes
from diffusion_api.optimization import MASK_LENGTH_RULE, Optimization, check_mask
from diffusion_api.serving import Autoscaling, Rollout, Serving


class ObjectMeta(ApiModel):
    """The part of Kubernetes' ObjectMeta that this project reads; the rest is accepted."""

    model_config = ConfigDict(**{**ApiModel.model_config, "extra": "allow"})

    name: str = Field(pattern=DNS_LABEL_PATTERN, max_length=52)
    """A DNS label; at most 52 characters, for names of children are made from it."""
    namespace: str | None = None
    """Namespace of the object."""
    generation: int = 0
    """Generation of the spec, counted by the API server."""
    uid: str | None = None
    """Unique id, given by the API server."""


class DiffusionDeploymentSpec(ApiModel):
    """What to serve, how good the pictures must stay, and on which GPU."""

    model_config = ConfigDict(json_schema_extra=cel_rules(MASK_LENGTH_RULE))

    model: ModelSource
    """The checkpoint."""
    shapes: Shapes = (Shape(width=1024, height=1024),)
    """Output sizes that are served."""
    optimization: Optimization = Optimization()
    """How far the model may be changed to be faster."""
    accelerator: Accelerator
    """Where it runs."""
    serving: Serving = Serving()
    """The serving pods."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """Serving pods wanted now, held between autoscaling's bounds. Autoscalers write it through the scale subresource; leave it to them."""
    autoscaling: Autoscaling = Autoscaling()
    """Bounds and aim of the number of serving pods."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the old one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_mask(self.model.sampling, self.optimization.step_cache)
        return self


NAME_RULES = (
    CelRule(
        "size(self.metadata.name) <= 52", "metadata.name has more than 52 characters; names of children are made from it, so shorten it"
    ),
    CelRule("!self.metadata.name.contains('.')", "metadata.name has a dot; names of Services are made from it, so write '-' instead"),
)


class EngineStatus(StatusModel):
    """The engine that a deployment uses."""

    name: str = Field(max_length=63)
    """Name of the DiffusionEngine."""
    key: str = Field(max_length=64)
    """Its engine key."""
    reused: bool = False
    """True where it was there already."""


class MeasuredQuality(StatusModel):
    """Quality of the served engine against the unoptimized model; means over the calibration prompts."""

    psnr: float | None = None
    """Peak signal-to-noise ratio in dB."""
    worst_psnr: float | None = None
    """Peak signal-to-noise ratio of the worst picture, in dB."""
    ssim: float | None = None
    """Structural similarity."""
    flip: float | None = None
    """NVIDIA's FLIP."""
    lpips: float | None = None
    """LPIPS."""
    clip_drop: float | None = None
    """Fall of the mean CLIP score."""


class DiffusionDeploymentStatus(StatusModel):
    """What the operator observed."""

    observed_generation: int | None = Field(default=None, ge=0)
    """Generation of the spec that this status belongs to."""
    phase: str | None = Field(default=None, max_length=256)
    """The state in a few words, for people; programs read `conditions`."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=CONDITION_LIST)
    """Observed states."""
    engine: EngineStatus | None = None
    """The engine in use."""
    recipe: str | None = Field(default=None, max_length=1024)
    """The recipe in use, for example `INT8 SmoothQuant + BF16, no step cache`."""
    quality: MeasuredQuality | None = None
    """Quality measured against the unoptimized model."""
    quality_summary: str | None = Field(default=None, max_length=256)
    """Quality against budget in a few words, for example `41.2 dB (≥ 35)`."""
    latency_milliseconds: float | None = Field(default=None, ge=0)
    """Median latency of one picture, measured by the build, in milliseconds."""
    energy_per_image_joules: float | None = Field(default=None, ge=0)
    """Energy of one picture in joules, where the accelerator reports its power."""
    cost_per_image: str | None = Field(default=None, max_length=64)
    """Cost of one picture with its currency, for example `0.0004 USD`, where the accelerator's price is known."""
    replicas: int = Field(default=0, ge=0)
    """Serving pods."""
    ready_replicas: int = Field(default=0, ge=0)
    """Serving pods that are ready."""
    updated_replicas: int = Field(default=0, ge=0)
    """Serving pods of the current revision."""
    updated_ready_replicas: int = Field(default=0, ge=0)
    """Serving pods of the current revision that are ready."""
    selector: str | None = Field(default=None, max_length=1024)
    """Label selector of the serving pods, for the scale subresource."""
    current_revision: str | None = Field(default=None, max_length=63)
    """Revision that the spec asks for."""
    serving_revision: str | None = Field(default=None, max_length=63)
    """Revision that receives the traffic."""
    last_good_revision: str | None = Field(default=None, max_length=63)
    """Revision that was last seen serving well."""


class DiffusionDeployment(ApiModel):
    """Serves an optimized diffusion model at a stated quality."""

    model_config = ConfigDict(json_schema_extra=cel_rules(*NAME_RULES))

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
