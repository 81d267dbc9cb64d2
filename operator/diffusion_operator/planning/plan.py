"""What a plan is: objects to apply, objects to delete, a status, what to tell, and when to look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from diffusion_api.conditions import Condition, ConditionStatus, Reason
from diffusion_operator.manifests.base import Manifest, Ref

Status = TypeVar("Status")


class EventType(StrEnum):
    """How serious an event is."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """A sentence about the object for `kubectl describe`."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True)
class Plan(Generic[Status]):
    """What to do now. An executor deletes, then applies what differs, then writes the status if it changed."""

    status: Status
    apply: tuple[Manifest, ...] = ()
    """In this order. An object that is as the manifest says already is left alone."""
    delete: tuple[Ref, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_seconds: float | None = None
    """When to look again where nothing happens before; None: when something happens."""


# Reasons of conditions that do not hold while all goes its way.
USUAL = frozenset(
    {
        Reason.ENGINE_PENDING,
        Reason.ENGINE_QUEUED,
        Reason.ENGINE_BUILDING,
        Reason.ROLLING_OUT,
        Reason.ROLLOUT_COMPLETE,
        Reason.ROLLOUT_PAUSED,
        Reason.SCALED_TO_ZERO,
        Reason.FIXED_REPLICAS,
    }
)


UNTOLD = frozenset({Reason.FIXED_REPLICAS, Reason.QUALITY_WITHIN_BUDGET})
"""Reasons that are what the user wrote, or that come with another that tells more."""


def transition_events(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[Event, ...]:
    """One event for each condition that came to another status or reason; so a quiet reconcile tells nothing.

    Of two conditions with one reason the first tells it, and what is not known yet is no news.
    """
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    # Pods of a rollout that goes on are not ready yet; that is no news either.
    rolls = any(condition.reason is Reason.ROLLING_OUT for condition in after)
    untold = UNTOLD | {Reason.PODS_NOT_READY} if rolls else UNTOLD
    told: dict[Reason, Event] = {}
    for condition in after:
        is_news = known.get(condition.type) != (condition.status, condition.reason)
        if is_news and condition.status is not ConditionStatus.UNKNOWN and condition.reason not in untold:
            told.setdefault(condition.reason, Event(_severity(condition), condition.reason.value, condition.message))
    return tuple(told.values())


def _severity(condition: Condition) -> EventType:
    is_well = condition.status is ConditionStatus.TRUE or condition.reason in USUAL
    return EventType.NORMAL if is_well else EventType.WARNING
