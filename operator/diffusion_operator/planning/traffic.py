"""Which revision gets the pods, and how many each has now; when a revision is given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.controller_revision import RevisionRecord
from diffusion_operator.planning.autoscaling import wanted_replicas
from diffusion_operator.planning.observed import ObservedDeployment
from diffusion_operator.planning.revisions import deadline, fallback, is_worth_keeping, judged, latest, progress_seconds
from diffusion_operator.planning.rollout import NO_PODS, is_whole, rollout_step
from diffusion_operator.planning.troubles import pods_trouble
from diffusion_operator.settings import OperatorSettings


@dataclass(frozen=True)
class Traffic:
    """Where the pods go."""

    asked: RevisionRecord
    """The revision that the spec asks for, as it is judged now."""
    target: RevisionRecord
    """The revision that pods move to: the asked one, or the last good one where that was given up."""
    replicas: Mapping[str, int]
    """`spec.replicas` by revision."""
    wanted: int
    complete: bool
    """Whether the target alone has pods, all wanted ones, all ready."""
    overdue: bool
    """Whether the deadline passed with no other revision to go back to."""
    last_good: str | None
    requeue_seconds: float | None
    """Until the deadline; None where none runs."""


def steered(
    asked: RevisionRecord, observed: ObservedDeployment, spec: DiffusionDeploymentSpec, settings: OperatorSettings, now: datetime
) -> Traffic:
    """Decide where the pods go.

    Args:
        asked: Record of the revision that the spec asks for.
        observed: What is there.
        spec: The deployment's.
        settings: The operator's.
        now: The time.
    """
    pods, wanted = observed.deployments, wanted_replicas(spec, observed.cluster, settings)
    # Pods of other revisions that take their time to end say nothing about this one.
    good = wanted > 0 and is_whole(asked.name, pods, wanted)
    # There is nothing to pause while no other revision has pods; and no deadline runs while no pod is wanted.
    paused = spec.rollout.paused and any(state.held for name, state in pods.items() if name != asked.name)
    asked = judged(asked, good=good, held=paused or wanted == 0, now=now.replace(microsecond=0))
    before = fallback(observed.records, asked)
    if before is None:
        asked = replace(asked, abandoned="")  # With nothing to go back to it goes on.
    limit = deadline(asked, pods.get(asked.name, NO_PODS), spec)
    runs = not (asked.good or asked.held or asked.abandoned)
    overdue = runs and now >= limit
    if overdue and before is not None:
        asked = replace(asked, abandoned=_why(asked, observed, spec, settings))
    is_given_up = bool(asked.abandoned)
    target = before if is_given_up and before is not None else asked
    # Going back is not held up by a pause, which is about going forward.
    rollout = spec.rollout.model_copy(update={"paused": False}) if is_given_up else spec.rollout
    step = rollout_step(target.name, pods, wanted, rollout)
    last_good = latest([record for record in (*observed.records, asked) if is_worth_keeping(record, asked)])
    return Traffic(
        asked=asked,
        target=target,
        replicas=step.replicas,
        wanted=wanted,
        complete=step.complete,
        overdue=overdue and not is_given_up,
        last_good=last_good.name if last_good else None,
        requeue_seconds=max(1.0, (limit - now).total_seconds()) if runs and now < limit else None,
    )


def _why(record: RevisionRecord, observed: ObservedDeployment, spec: DiffusionDeploymentSpec, settings: OperatorSettings) -> str:
    """Say it in one sentence that stays in the record, for the pods that it is about will be gone."""
    lack = f"no pod of it became ready within {progress_seconds(spec)} s"
    trouble = observed.deployments.get(record.name, NO_PODS).trouble
    return f"{lack}: {pods_trouble(trouble, spec, observed, settings)[1]}" if trouble else lack
