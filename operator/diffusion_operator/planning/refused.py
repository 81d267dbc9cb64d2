"""What to say where the operator cannot do its work: the object cannot be read, or the API server refuses what was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from diffusion_api.conditions import Condition, ConditionStatus, ConditionType, Reason
from diffusion_api.deployment import DiffusionDeploymentStatus
from diffusion_api.engine import DiffusionEngineStatus
from diffusion_api.problems import InvalidSpecError
from diffusion_operator.planning.plan import Plan, transition_events
from diffusion_operator.planning.verdict import Verdict, fails, merged

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
Status = TypeVar("Status", DiffusionDeploymentStatus, DiffusionEngineStatus)


def plan_unreadable(metadata: Mapping[str, Any], status: Status, error: InvalidSpecError, now: datetime) -> Plan[Status]:
    """Say what is wrong with an object that the API server took and this release cannot read; leave everything else as it is.

    Args:
        metadata: The object's.
        status: Its status, empty where that cannot be read either.
        error: What is wrong.
        now: The time.
    """
    generation = metadata.get("generation", 0)
    conditions = merged(status.conditions, (fails(READY, error.reason, str(error)),), generation, now)
    new = status.model_copy(update={"conditions": conditions, "observed_generation": generation, "phase": "Invalid"})
    return Plan(new, events=transition_events(status.conditions, conditions))


def plan_refused(plan: Plan[Status], before: Sequence[Condition], message: str, now: datetime) -> Plan[Status]:
    """Return the plan's status with the refusal in it. What serves goes on serving, so `Ready` stays where it is true.

    Args:
        plan: What could not be carried out.
        before: Conditions as the object has them.
        message: Who will not have it, and why.
        now: The time.
    """
    said = f"{message}; the operator tries again every few minutes"
    refusal = {PROGRESSING: fails(PROGRESSING, Reason.APPLY_REFUSED, said)}
    planned = {each.type: Verdict(each.type, each.status, each.reason, each.message) for each in plan.status.conditions}
    if READY not in planned or planned[READY].status is not ConditionStatus.TRUE:
        refusal[READY] = fails(READY, Reason.APPLY_REFUSED, said)
    generation = plan.status.observed_generation or 0
    conditions = merged(before, tuple((planned | refusal).values()), generation, now)
    new = plan.status.model_copy(update={"conditions": conditions, "phase": Reason.APPLY_REFUSED.value})
    return Plan(new, events=transition_events(before, conditions))
