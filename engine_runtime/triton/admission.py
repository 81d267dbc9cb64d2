"""How many requests may wait: beyond the limit they are refused at once, with a guess of when to come back."""

from __future__ import annotations

import math
import threading

from engine_runtime.errors import QueueFullError

SMOOTHING = 0.2
"""Weight of the newest duration in the moving average."""


class Admission:
    """Counts requests that wait or run; safe for many threads."""

    def __init__(self, concurrent: int, max_waiting: int) -> None:
        """Start empty.

        Args:
            concurrent: Requests that run at once.
            max_waiting: Requests that may wait beside those.
        """
        self._concurrent = concurrent
        self._max_waiting = max_waiting
        self._seconds = 0.0
        self._pending = 0
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Requests that wait or run."""
        return self._pending

    def enter(self) -> None:
        """Let a request in.

        Raises:
            QueueFullError: Too many wait; the message says when to try again.
        """
        with self._lock:
            if self._pending >= self._concurrent + self._max_waiting:
                raise QueueFullError(f"{self._max_waiting} requests wait already; try again in {self._retry_seconds()} s")
            self._pending += 1

    def leave(self, seconds: float | None) -> None:
        """Let a request out; `seconds` is how long it ran, None where it did not."""
        with self._lock:
            self._pending -= 1
            if seconds is not None:
                self._seconds = seconds if self._seconds == 0 else (1 - SMOOTHING) * self._seconds + SMOOTHING * seconds

    def _retry_seconds(self) -> int:
        """When half of those that wait are through."""
        return max(1, math.ceil(self._seconds * self._max_waiting / 2 / self._concurrent))
