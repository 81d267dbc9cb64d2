"""Which objects do not come to rest, because somebody undoes what the operator does for them. These are held back, longer each time.

An answer to each change by the next one would be a loop as fast as the two of them together. What tells it from a rollout, which makes
many changes in a row, too, is that the very same thing is applied again and again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from diffusion_operator.reconciling.keys import Key, Outcome
from diffusion_operator.reconciling.work_queue import BackOff

SETTLING_LIMIT = 10
"""So many changes of one object in a row, or repetitions of one change, are usual at most."""
SETTLING_SECONDS = 600.0
"""Repetitions that are farther apart are no quarrel."""
LONGEST_SECONDS = 60.0
"""Whoever is held back is still looked at so often."""


@dataclass
class _Unrest:
    in_a_row: int = 0
    repeats: int = 0
    repeated_at: float = 0.0
    held_until: float = 0.0
    generation: int | None = None
    """Of the object's spec when it was held back."""


class Settling:
    """Knows the objects that were changed lately, and no others."""

    def __init__(self, back_off: BackOff, clock: Callable[[], float] = time.monotonic) -> None:
        self._back_off, self._clock = back_off, clock
        self._unrest: dict[Key, _Unrest] = {}

    def look(self, key: Key, outcome: Outcome) -> float:
        """Take note of what a look came to, and return for how many seconds the object is held back; 0: it is not."""
        if not outcome.changed and key not in self._unrest:
            return 0.0
        unrest, now = self._unrest.setdefault(key, _Unrest()), self._clock()
        if now - unrest.repeated_at > SETTLING_SECONDS:
            unrest.repeats = 0
        if not outcome.changed:
            unrest.in_a_row = 0
            if not unrest.repeats:
                del self._unrest[key]
            return 0.0
        unrest.in_a_row += 1
        if outcome.repeated:
            unrest.repeats, unrest.repeated_at = unrest.repeats + 1, now
        excess = max(unrest.in_a_row, unrest.repeats) - SETTLING_LIMIT
        if excess <= 0:
            return 0.0
        seconds = min(self._back_off.seconds(excess, random.random()), LONGEST_SECONDS)
        unrest.held_until = now + seconds
        return seconds

    def held_seconds(self, key: Key, generation: int | None) -> float:
        """For how many seconds news of an object must wait.

        Args:
            key: The object.
            generation: Its own where the news is of the object itself; a spec that changed waits for nothing.
        """
        unrest = self._unrest.get(key)
        if unrest is None or (left := unrest.held_until - self._clock()) <= 0:
            return 0.0
        if generation is None or generation == unrest.generation:
            return left
        unrest.generation = generation
        return 0.0
