"""Metrics of what became of builds, rollouts and objects, read from statuses and not kept beside them."""

from __future__ import annotations

from collections import Counter

from diffusion_api.conditions import ConditionType, Reason
from diffusion_api.deployment import DiffusionDeploymentStatus
from diffusion_api.engine import DiffusionEngineStatus
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.metrics import OperatorMetrics
from diffusion_operator.observing.objects import condition

ROLLOUT_ENDS = {Reason.ROLLOUT_COMPLETE: "complete", Reason.ROLLOUT_ABANDONED: "abandoned"}


class StatusMetrics:
    """Counts ends of builds and rollouts as their statuses are written, and objects by condition as they are seen."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._metrics = metrics
        for end in ROLLOUT_ENDS.values():
            metrics.rollouts.labels(end)  # Prometheus sees no increase in a series that begins with 1.
        self._seen: dict[tuple[Kind, str, str], tuple[str, str, str]] = {}

    def changed(self, before: object, after: object) -> None:
        """Take note of a status that was written."""
        if isinstance(after, DiffusionEngineStatus):
            self._build(before if isinstance(before, DiffusionEngineStatus) else None, after)
        elif isinstance(after, DiffusionDeploymentStatus):
            self._rollout(before if isinstance(before, DiffusionDeploymentStatus) else None, after)

    def follow(self, kind: Kind, body: Manifest, gone: bool) -> None:
        """Take note of an object that changed or went."""
        if kind not in (kinds.DEPLOYMENT, kinds.ENGINE):
            return
        key = (kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        if gone:
            self._seen.pop(key, None)
        else:
            ready = condition(body, ConditionType.READY) or {}
            self._seen[key] = (kind.name, str(ready.get("status", "Unknown")), str(ready.get("reason", "")))

    def objects(self) -> Counter[tuple[str, str, str]]:
        """Number of objects by kind, status and reason of the `Ready` condition."""
        return Counter(self._seen.values())

    def _build(self, before: DiffusionEngineStatus | None, after: DiffusionEngineStatus) -> None:
        if after.finished_at is None or (before is not None and before.finished_at == after.finished_at):
            return
        result = "succeeded" if after.result else "failed"
        self._metrics.builds.labels(result).inc()
        if after.started_at is not None:
            self._metrics.build_seconds.labels(result).observe((after.finished_at - after.started_at).total_seconds())

    def _rollout(self, before: DiffusionDeploymentStatus | None, after: DiffusionDeploymentStatus) -> None:
        end = _rollout_end(after)
        if end is not None and (_rollout_end(before) != end or (before and before.current_revision != after.current_revision)):
            self._metrics.rollouts.labels(end).inc()


def _rollout_end(status: DiffusionDeploymentStatus | None) -> str | None:
    progressing = [each for each in status.conditions if each.type is ConditionType.PROGRESSING] if status else []
    return ROLLOUT_ENDS.get(progressing[0].reason) if progressing else None
