"""Status conditions in the form of the Kubernetes API conventions, with every type and reason this project writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue

from diffusion_api.base import StatusModel


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """Positive states that read after "is"."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    ENGINE_BUILT = "EngineBuilt"
    QUALITY_GATE_PASSED = "QualityGatePassed"
    SCALING_ACTIVE = "ScalingActive"


class Reason(StrEnum):
    """Why a condition is as it is. Each has an entry in docs/troubleshooting.md."""

    INVALID_SPEC = "InvalidSpec"
    APPLY_REFUSED = "ApplyRefused"
    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    PROMPTS_NOT_FOUND = "PromptsNotFound"
    ENGINE_PENDING = "EnginePending"
    ENGINE_QUEUED = "EngineQueued"
    ENGINE_BUILDING = "EngineBuilding"
    ENGINE_BUILD_FAILED = "EngineBuildFailed"
    BUILD_DEADLINE_EXCEEDED = "BuildDeadlineExceeded"
    ENGINE_FILES_MISSING = "EngineFilesMissing"
    CLEANUP_FAILED = "CleanupFailed"
    ENGINE_MISMATCH = "EngineMismatch"
    ENGINE_READY = "EngineReady"
    QUALITY_WITHIN_BUDGET = "QualityWithinBudget"
    QUALITY_OUTSIDE_BUDGET = "QualityOutsideBudget"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_COMPLETE = "RolloutComplete"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_ABANDONED = "RolloutAbandoned"
    PODS_NOT_READY = "PodsNotReady"
    NO_MATCHING_NODE = "NoMatchingNode"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    SCALED_TO_ZERO = "ScaledToZero"
    AUTOSCALER_FOUND = "AutoscalerFound"
    AUTOSCALER_FAILING = "AutoscalerFailing"
    AUTOSCALER_MISSING = "AutoscalerMissing"
    FIXED_REPLICAS = "FixedReplicas"
    SERVING = "Serving"


# One entry a type, so that server-side apply merges the writers' conditions.
CONDITION_LIST: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class Condition(StatusModel):
    """One observed state of a resource."""

    type: ConditionType = Field(json_schema_extra={"enum": None, "maxLength": 316, "pattern": r"^[A-Za-z][A-Za-z0-9]*$"})
    """What is observed, for example `Ready`."""
    status: ConditionStatus
    """Whether it holds."""
    reason: Reason = Field(json_schema_extra={"enum": None, "minLength": 1, "maxLength": 1024, "pattern": r"^[A-Za-z][A-Za-z0-9]*$"})
    """A word for programs; docs/troubleshooting.md has an entry for each."""
    message: str = Field(default="", max_length=32_768)
    """A sentence for people."""
    observed_generation: int = Field(ge=0)
    """Generation of the spec that this was observed for."""
    last_transition_time: datetime
    """When `status` last changed."""


def merge_conditions(current: Sequence[Condition], observed: Sequence[Condition]) -> tuple[Condition, ...]:
    """Lay newly observed conditions over the current ones, in the order of `ConditionType`.

    A condition keeps its `last_transition_time` while its status stays, so a quiet reconcile yields an equal tuple.
    """
    merged = {condition.type: condition for condition in current}
    for condition in observed:
        before = merged.get(condition.type)
        unchanged = before is not None and before.status is condition.status
        since = before.last_transition_time if before is not None and unchanged else condition.last_transition_time
        merged[condition.type] = condition.model_copy(update={"last_transition_time": since})
    order = list(ConditionType)
    return tuple(sorted(merged.values(), key=lambda condition: order.index(condition.type)))
