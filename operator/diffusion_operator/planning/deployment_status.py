"""What a deployment's status says: its conditions with a sentence each, and the fields that people look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_api.deployment import DiffusionDeployment, DiffusionDeploymentStatus, EngineStatus
from diffusion_api.engine import EngineResult
from diffusion_operator.manifests.base import Owner
from diffusion_operator.manifests.labels import selector_text, serving_selector
from diffusion_operator.planning.autoscaling import scaled_to_zero
from diffusion_operator.planning.engine import NOT_STARTED
from diffusion_operator.planning.engine_identity import EngineIdentity
from diffusion_operator.planning.observed import EngineState, ObservedDeployment, ObservedEngine
from diffusion_operator.planning.rollout import NO_PODS
from diffusion_operator.planning.traffic import Traffic
from diffusion_operator.planning.troubles import pods_trouble
from diffusion_operator.planning.verdict import Verdict, fails, holds, merged, unknown
from diffusion_operator.settings import OperatorSettings

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
BUILT, GATE = ConditionType.ENGINE_BUILT, ConditionType.QUALITY_GATE_PASSED


@dataclass(frozen=True)
class Outcome:
    """What was decided."""

    identity: EngineIdentity
    engine: ObservedEngine | None
    traffic: Traffic | None
    """None until the first revision exists."""
    scaling: Verdict


def outcome_status(
    deployment: DiffusionDeployment, observed: ObservedDeployment, settings: OperatorSettings, outcome: Outcome, now: datetime
) -> DiffusionDeploymentStatus:
    """Build the status; equal to the one before where nothing changed."""
    before = deployment.status or DiffusionDeploymentStatus()
    engine = engine_verdict(outcome)
    traffic = outcome.traffic
    ready = _ready(deployment, observed, settings, traffic, engine) if traffic else replace_type(engine, READY)
    progressing = _progressing(traffic, engine)
    verdicts = (ready, progressing, engine, gate_verdict(outcome), outcome.scaling)
    asked = observed.deployments.get(traffic.asked.name, NO_PODS) if traffic else NO_PODS
    fields: dict[str, object] = {
        "observed_generation": deployment.metadata.generation,
        "phase": _phase(ready, progressing, engine),
        "conditions": merged(before.conditions, verdicts, deployment.metadata.generation, now),
        "engine": _engine_status(deployment.metadata.name, before, outcome),
        "updated_replicas": asked.existing if engine.status is ConditionStatus.TRUE else 0,
        "updated_ready_replicas": asked.ready if engine.status is ConditionStatus.TRUE else 0,
    }
    fields |= _pod_fields(deployment, observed, traffic)
    return before.model_copy(update=fields)


def held_up_status(
    deployment: DiffusionDeployment,
    observed: ObservedDeployment,
    traffic: Traffic | None,
    verdicts: tuple[Verdict, ...],
    *,
    phase: str,
    now: datetime,
) -> DiffusionDeploymentStatus:
    """Build the status where the spec leads nowhere, and what was asked for before serves on.

    Args:
        deployment: With its status, of which the engine stays.
        observed: What is there.
        traffic: Where the pods go.
        verdicts: Among them `Ready`, which says why; so does `Progressing`, for nothing leads to this spec.
        phase: The same in a few words.
        now: The time.
    """
    before = deployment.status or DiffusionDeploymentStatus()
    said = [replace_type(each, PROGRESSING) for each in verdicts if each.type is READY]
    generation = deployment.metadata.generation
    fields: dict[str, object] = {
        "observed_generation": generation,
        "phase": phase,
        "conditions": merged(before.conditions, (*verdicts, *said), generation, now),
        "updated_replicas": 0,
        "updated_ready_replicas": 0,
    }
    return before.model_copy(update=fields | _pod_fields(deployment, observed, traffic))


def engine_verdict(outcome: Outcome) -> Verdict:
    """The `EngineBuilt` condition."""
    name, engine = outcome.identity.name, outcome.engine
    if engine is None:
        return fails(BUILT, Reason.ENGINE_PENDING, f"engine {name} is made")
    said = f"engine {name}: {engine.message}" if engine.message else f"engine {name}"
    match engine.state:
        case EngineState.PENDING:
            return fails(BUILT, engine.reason if engine.reason in NOT_STARTED else Reason.ENGINE_PENDING, said)
        case EngineState.QUEUED:
            return fails(BUILT, Reason.ENGINE_QUEUED, said)
        case EngineState.BUILDING:
            return fails(BUILT, Reason.ENGINE_BUILDING, said)
        case EngineState.FAILED:
            return fails(BUILT, Reason.ENGINE_BUILD_FAILED, f"{said}; see `kubectl describe de {name}`")
        case EngineState.READY:
            return holds(BUILT, Reason.ENGINE_READY, said)


def gate_verdict(outcome: Outcome) -> Verdict:
    """The `QualityGatePassed` condition."""
    engine = outcome.engine
    if engine is not None and engine.state is EngineState.READY and engine.result is not None:
        return holds(GATE, Reason.QUALITY_WITHIN_BUDGET, engine.result.quality_summary or "quality is inside the budget")
    if engine is not None and engine.outside_budget:
        return fails(GATE, Reason.QUALITY_OUTSIDE_BUDGET, engine.message)
    return unknown(GATE, engine_verdict(outcome).reason, "measured at the end of the build")


def replace_type(verdict: Verdict, type: ConditionType) -> Verdict:
    """The same finding as another condition."""
    return Verdict(type, verdict.status, verdict.reason, verdict.message)


def _ready(
    deployment: DiffusionDeployment, observed: ObservedDeployment, settings: OperatorSettings, traffic: Traffic, engine: Verdict
) -> Verdict:
    """Ready means that requests are answered as promised, by whichever revision; `Progressing` tells which."""
    if traffic.wanted == 0:
        message = scaled_to_zero(Owner.of(deployment), deployment.spec, observed.cluster, settings)
        return holds(READY, Reason.SCALED_TO_ZERO, message)
    ready = sum(state.ready for state in observed.deployments.values())
    if ready >= max(1, traffic.wanted - deployment.spec.rollout.max_unavailable):
        return holds(READY, Reason.SERVING, f"{ready} of {traffic.wanted} pods are ready{_aside(traffic, engine)}")
    lack = f"{ready} of {traffic.wanted} pods are ready"
    trouble = next((state.trouble for _, state in sorted(observed.deployments.items()) if state.trouble), None)
    if trouble is None:
        return fails(READY, Reason.PODS_NOT_READY, f"{lack}; pods load the engine")
    reason, message = pods_trouble(trouble, deployment.spec, observed, settings)
    return fails(READY, reason, f"{lack}; {message}")


def _aside(traffic: Traffic, engine: Verdict) -> str:
    if traffic.asked.abandoned:
        return f"; revision {traffic.asked.name} was abandoned, and {traffic.target.name} serves"
    if engine.status is not ConditionStatus.TRUE:
        return f"; revision {traffic.target.name} serves until the new engine is there"
    return ""


def _progressing(traffic: Traffic | None, engine: Verdict) -> Verdict:
    if traffic is None or (engine.status is not ConditionStatus.TRUE and traffic.complete):
        has_failed = engine.reason is Reason.ENGINE_BUILD_FAILED
        return (fails if has_failed else holds)(PROGRESSING, engine.reason, engine.message)
    asked = traffic.asked
    if asked.abandoned:
        advice = "change the spec, or apply the one that served before"
        return fails(PROGRESSING, Reason.ROLLOUT_ABANDONED, f"revision {asked.name} was abandoned: {asked.abandoned}; {advice}")
    if traffic.wanted == 0:
        return fails(PROGRESSING, Reason.SCALED_TO_ZERO, f"revision {asked.name} starts when pods are wanted")
    if asked.held:
        return fails(PROGRESSING, Reason.ROLLOUT_PAUSED, f"revision {asked.name} waits; set spec.rollout.paused to false to go on")
    if traffic.overdue:
        message = f"revision {asked.name} made no progress within its deadline, and no earlier one was good; see the Ready condition"
        return fails(PROGRESSING, Reason.PODS_NOT_READY, message)
    if traffic.complete or (asked.good and set(traffic.replicas) == {asked.name}):
        return fails(PROGRESSING, Reason.ROLLOUT_COMPLETE, f"revision {asked.name} has all pods")
    return holds(PROGRESSING, Reason.ROLLING_OUT, f"pods move to revision {asked.name}")


def _pod_fields(deployment: DiffusionDeployment, observed: ObservedDeployment, traffic: Traffic | None) -> dict[str, object]:
    pods = list(observed.deployments.values())
    result = _served_result(observed, traffic)
    return {
        "replicas": sum(state.existing for state in pods),
        "ready_replicas": sum(state.ready for state in pods),
        "selector": selector_text(serving_selector(deployment.metadata.name)),
        "current_revision": traffic.asked.name if traffic else None,
        "serving_revision": _serving_revision(observed, traffic),
        "last_good_revision": traffic.last_good if traffic else None,
        **(_result_fields(result) if result else {}),
    }


def _served_result(observed: ObservedDeployment, traffic: Traffic | None) -> EngineResult | None:
    """What the build of the serving revision yielded; of the one to come where none serves yet, and None where it is not known."""
    if traffic is None:
        return None
    name = _serving_revision(observed, traffic) or traffic.target.name
    record = next((each for each in (traffic.asked, *observed.records) if each.name == name), None)
    result = observed.results.get(record.engine) if record else None
    # An engine that was built again may lie elsewhere, made otherwise.
    return result if record and result and result.artifact == record.artifact else None


def _phase(ready: Verdict, progressing: Verdict, engine: Verdict) -> str:
    if ready.status is ConditionStatus.TRUE:
        quiet = (Reason.ROLLOUT_COMPLETE, Reason.SCALED_TO_ZERO)
        return ready.reason.value if progressing.reason in quiet else f"{ready.reason.value}, {progressing.reason.value}"
    return (
        progressing.reason.value if engine.status is ConditionStatus.TRUE and ready.reason is Reason.PODS_NOT_READY else ready.reason.value
    )


def _serving_revision(observed: ObservedDeployment, traffic: Traffic | None) -> str | None:
    """The revision with the most ready pods; of two, the one that pods move to."""
    ready = {name: state.ready for name, state in observed.deployments.items() if state.ready}
    target = traffic.target.name if traffic else ""
    return max(sorted(ready), key=lambda name: (ready[name], name == target), default=None)


def _engine_status(name: str, before: DiffusionDeploymentStatus, outcome: Outcome) -> EngineStatus:
    identity = outcome.identity
    if before.engine is not None and before.engine.name == identity.name:
        return before.engine
    return EngineStatus(name=identity.name, key=identity.key, reused=outcome.engine is not None and outcome.engine.made_for != name)


def _result_fields(result: EngineResult) -> dict[str, object]:
    return {
        "recipe": result.recipe.label,
        "quality": result.quality,
        "quality_summary": result.quality_summary,
        "latency_milliseconds": result.latency.median_ms if result.latency else None,
    }
