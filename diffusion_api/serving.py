"""How the engine is served, scaled and rolled out. Nothing here changes the engine key."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from diffusion_api.base import ApiModel, CelRule, cel_rules


class Runtime(StrEnum):
    """What serves the engine."""

    TRITON = "Triton"


class Serving(ApiModel):
    """The serving pods."""

    runtime: Runtime = Runtime.TRITON
    """The inference server."""
    max_batch_size: int = Field(default=8, ge=1, le=64)
    """Largest number of requests that share one denoising step."""
    max_queue_delay_microseconds: int = Field(default=1000, ge=0, le=1_000_000)
    """How long a denoising step waits for others to share it, in microseconds."""
    max_pending_requests: int = Field(default=64, ge=1, le=100_000)
    """Requests that may wait; further ones are refused at once."""
    startup_timeout_seconds: int = Field(default=1800, ge=10, le=86_400)
    """How long a pod may take to load the engine, in seconds."""


class Autoscaling(ApiModel):
    """Number of serving pods."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule(
                "self.minReplicas <= self.maxReplicas",
                "minReplicas %d is above maxReplicas %d",
                ("self.minReplicas", "self.maxReplicas"),
            )
        )
    )

    min_replicas: int = Field(default=1, ge=0, le=1000)
    """Fewest pods. 0 needs KEDA, and a load that is seen without pods: requests are refused while there is none."""
    max_replicas: int = Field(default=1, ge=1, le=1000)
    """Most pods."""
    target_pending_requests: int = Field(default=2, ge=1, le=10_000)
    """Pending requests per pod that autoscaling aims at."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} is above maxReplicas {self.max_replicas}")
        return self


class RolloutStrategy(StrEnum):
    """How pods of a new revision replace the old ones."""

    ROLLING_UPDATE = "RollingUpdate"
    RECREATE = "Recreate"
    CANARY = "Canary"


STUCK_SENTENCE = "maxSurge and maxUnavailable are both 0: no pod could ever be replaced; raise one of them"


class Rollout(ApiModel):
    """How a new revision replaces the old one."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule("self.strategy != 'RollingUpdate' || self.maxSurge > 0 || self.maxUnavailable > 0", STUCK_SENTENCE),
        )
    )

    strategy: RolloutStrategy = RolloutStrategy.ROLLING_UPDATE
    """RollingUpdate replaces pods one by one; Recreate stops all first; Canary shifts a share of the traffic and watches it."""
    max_surge: int = Field(default=0, ge=0, le=1000)
    """Pods above the wanted number during a rollout; each needs an extra GPU."""
    max_unavailable: int = Field(default=1, ge=0, le=1000)
    """Pods below the wanted number during a rollout."""
    progress_deadline_seconds: int = Field(default=3600, ge=10, le=604_800)
    """A revision that makes no progress for so long, at least `serving.startupTimeoutSeconds`, is abandoned, in seconds."""
    revision_history_limit: int = Field(default=5, ge=0, le=100)
    """Revisions kept for an undo."""
    paused: bool = False
    """Hold the rollout where it is."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy is RolloutStrategy.ROLLING_UPDATE and self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError(STUCK_SENTENCE)
        return self
