"""What is around a DiffusionDeployment: its revisions, their pods, its engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_api.engine import DiffusionEngine
from diffusion_operator.manifests.controller_revision import RevisionRecord, revision_record
from diffusion_operator.manifests.engine import MADE_FOR
from diffusion_operator.manifests.labels import ENGINE, REVISION
from diffusion_operator.observing.objects import Body, annotation, condition, is_deleted, label, part, time_of
from diffusion_operator.observing.pods import NO_TROUBLES, holds_accelerator, is_serving, one_line, ready_since, trouble
from diffusion_operator.planning.engine import NOT_STARTED
from diffusion_operator.planning.observed import EngineState, ObservedEngine, RevisionPods, Trouble

FIRST_METRIC_SECONDS = 120.0
"""A pod's first metric reaches its autoscaler so late: it is scraped, offered by an adapter, and asked for, each by its own clock."""
SCALED_TO_ZERO = "ScalingDisabled"
"""Source: Kubernetes pkg/controller/podautoscaler: the target asks for no pods, so there is nothing to scale."""


def revision_records(bodies: Iterable[Body]) -> tuple[RevisionRecord, ...]:
    """Read ControllerRevisions; those that the operator did not write, or that somebody changed, are left alone."""
    records = []
    for body in bodies:
        try:
            records.append(revision_record(body))
        except (KeyError, ValueError, TypeError):
            continue
    return tuple(records)


def orphaned_records(serving: Iterable[Body], records: Iterable[RevisionRecord]) -> tuple[RevisionRecord, ...]:
    """Records of Deployments whose own somebody deleted, read from the Deployments: enough to scale them, no more."""
    known = {record.name for record in records}
    orphans = []
    for body in serving:
        metadata, template = part(body, "metadata"), part(body, "spec", "template")
        if metadata["name"] not in known and template and not is_deleted(body):
            made = time_of(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC)
            orphans.append(RevisionRecord(metadata["name"], 0, label(body, ENGINE), "", dict(template), {}, made))
    return tuple(orphans)


def revision_pods(serving: Iterable[Body], pods: Iterable[Body], unmounted: Mapping[str, Trouble] = NO_TROUBLES) -> dict[str, RevisionPods]:
    """Sum up each revision that has a Deployment or pods.

    Args:
        serving: Kubernetes Deployments of one DiffusionDeployment; they are named after their revision.
        pods: Its pods.
        unmounted: By name of a pod, why it cannot mount its volumes.
    """
    by_revision: dict[str, list[Body]] = defaultdict(list)
    for pod in pods:
        if label(pod, REVISION) and holds_accelerator(pod):
            by_revision[label(pod, REVISION)].append(pod)
    # Where a Deployment is not known, as when somebody took the label by which it is found, its pods tell what it wants.
    desired = {name: sum(not is_deleted(pod) for pod in its) for name, its in by_revision.items()}
    desired |= {str(part(body, "metadata").get("name")): _desired(body) for body in serving}
    return {name: _summed(desired[name], by_revision.get(name, []), unmounted) for name in sorted(desired)}


def first_metric_seconds(pods: Iterable[RevisionPods], now: datetime) -> float | None:
    """Seconds until an autoscaler should have a metric, 0 where it should by now; None where no pod is ready."""
    since = min((each.ready_since for each in pods if each.ready_since), default=None)
    return max(0.0, FIRST_METRIC_SECONDS - (now - since).total_seconds()) if since else None


def autoscaler_problems(autoscalers: Iterable[Body], *, serves: bool) -> dict[str, str]:
    """What autoscalers say of why they cannot scale, by kind.

    Args:
        autoscalers: HorizontalPodAutoscalers and ScaledObjects of one DiffusionDeployment.
        serves: Whether a pod has been ready for a while; before, there is no metric, and a HorizontalPodAutoscaler says so.
    """
    asked = ("Ready", "AbleToScale", *(["ScalingActive"] if serves else []))
    found = {}
    for body in autoscalers:
        said = (condition(body, name) for name in asked)
        problem = next((each for each in said if each and each.get("status") == "False" and each.get("reason") != SCALED_TO_ZERO), None)
        if problem is not None and not is_deleted(body):
            found[str(body.get("kind"))] = one_line(problem.get("message") or problem.get("reason"))
    return found


def observed_engine(engine: DiffusionEngine) -> ObservedEngine:
    """See an engine as a deployment does."""
    status = engine.status
    conditions = {each.type: each for each in status.conditions} if status else {}
    ready, gate = conditions.get(ConditionType.READY), conditions.get(ConditionType.QUALITY_GATE_PASSED)
    result = status.result if status else None
    return ObservedEngine(
        name=engine.metadata.name,
        state=_state(engine),
        message=ready.message if ready else "",
        reason=ready.reason if ready else None,
        outside_budget=gate is not None and gate.reason is Reason.QUALITY_OUTSIDE_BUDGET,
        result=result,
        made_for=annotation({"metadata": engine.metadata.model_extra or {}}, MADE_FOR),
    )


def _state(engine: DiffusionEngine) -> EngineState:
    status = engine.status
    conditions = {each.type: each for each in status.conditions} if status else {}
    ready, progressing = conditions.get(ConditionType.READY), conditions.get(ConditionType.PROGRESSING)
    if status is None or ready is None or progressing is None:
        return EngineState.PENDING
    if ready.status is ConditionStatus.TRUE and status.result is not None:
        return EngineState.READY
    if progressing.status is not ConditionStatus.TRUE:
        # Files that are gone are built again, which begins with the next look, unless they were gone too often.
        is_rebuilt = ready.reason is Reason.ENGINE_FILES_MISSING and status.failure is None
        # One whose files were on their way out is looked at anew as soon as it is used.
        return EngineState.PENDING if is_rebuilt or ready.reason is Reason.CLEANUP_FAILED else EngineState.FAILED
    if ready.reason is Reason.ENGINE_QUEUED:
        return EngineState.QUEUED
    return EngineState.PENDING if ready.reason in NOT_STARTED else EngineState.BUILDING


def _desired(body: Body) -> int:
    replicas = part(body, "spec").get("replicas", 1)
    return 0 if is_deleted(body) or not isinstance(replicas, int) else replicas


def _summed(desired: int, pods: list[Body], unmounted: Mapping[str, Trouble]) -> RevisionPods:
    alive = [pod for pod in pods if not is_deleted(pod)]
    troubles = [each for each in (trouble(pod) or unmounted.get(str(part(pod, "metadata").get("name"))) for pod in alive) if each]
    ready = [pod for pod in pods if is_serving(pod)]
    times = [each for each in map(ready_since, ready) if each]
    return RevisionPods(
        desired=desired,
        existing=len(pods),
        ready=len(ready),
        last_ready_at=max(times, default=None),
        ready_since=min(times, default=None),
        trouble=next(iter(troubles), None),
    )
