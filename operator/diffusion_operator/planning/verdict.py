"""A condition before it has a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from diffusion_api.conditions import Condition, ConditionStatus, ConditionType, Reason, merge_conditions

MESSAGE_LIMIT = 4096


@dataclass(frozen=True)
class Verdict:
    """What was found of one condition."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str


def holds(type: ConditionType, reason: Reason, message: str) -> Verdict:
    """The condition holds."""
    return Verdict(type, ConditionStatus.TRUE, reason, message)


def fails(type: ConditionType, reason: Reason, message: str) -> Verdict:
    """The condition does not hold."""
    return Verdict(type, ConditionStatus.FALSE, reason, message)


def unknown(type: ConditionType, reason: Reason, message: str) -> Verdict:
    """Nobody knows yet."""
    return Verdict(type, ConditionStatus.UNKNOWN, reason, message)


def merged(current: Sequence[Condition], verdicts: Sequence[Verdict], generation: int, now: datetime) -> tuple[Condition, ...]:
    """Lay verdicts over the conditions that are there; times change only with a status. Whole seconds, as Kubernetes writes them."""
    observed = [
        Condition(
            type=verdict.type,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message[:MESSAGE_LIMIT],
            observed_generation=generation,
            last_transition_time=now.replace(microsecond=0),
        )
        for verdict in verdicts
    ]
    return merge_conditions(current, observed)
