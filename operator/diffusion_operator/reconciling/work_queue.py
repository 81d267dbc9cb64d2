"""Keys that want a look: each waits at most once, is worked on by one worker at a time, and comes back later and later while it fails.

The rules are those of client-go's work queue: a key that is added while it is worked on is worked on again afterwards.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True)
class BackOff:
    """How long a failing key waits."""

    first_seconds: float = 0.05
    longest_seconds: float = 300.0
    jitter: float = 0.2
    """Share of the wait by which it is made longer at random, so that keys which failed together part."""

    def seconds(self, failures: int, draw: float) -> float:
        """Wait after so many failures; `draw` is in [0, 1)."""
        wait = min(self.first_seconds * 2.0 ** min(failures - 1, 30), self.longest_seconds)
        return wait * (1 + self.jitter * draw)


DEFAULT_BACK_OFF = BackOff()


class QueueObserver(Protocol):
    """Is told what happens, for metrics."""

    def added(self, depth: int) -> None:
        """A key was added."""

    def retried(self) -> None:
        """A key was put off after a failure."""

    def started(self, depth: int, waited_seconds: float) -> None:
        """Work on a key began."""

    def finished(self, worked_seconds: float) -> None:
        """Work on a key ended."""


class WorkQueue(Generic[Key]):
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        observer: QueueObserver,
        back_off: BackOff = DEFAULT_BACK_OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer, self._back_off, self._clock = observer, back_off, clock
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}
        """Keys that wait or must be worked on again, and since when."""
        self._working: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, tuple[float, asyncio.TimerHandle]] = {}
        self._stopped = False

    def add(self, key: Key) -> None:
        """Want a look now."""
        if self._stopped or key in self._waiting:
            return
        self._waiting[key] = self._clock()
        if key not in self._working:
            self._ready.put_nowait(key)
        self._observer.added(self._ready.qsize())

    def add_after(self, key: Key, seconds: float) -> None:
        """Want a look later, or earlier where one is wanted already. A key has one timer, and the earliest wins."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        before = self._timers.get(key)
        if before is not None:
            if before[0] <= due:
                return
            before[1].cancel()
        self._timers[key] = (due, loop.call_at(due, self._fire, key))

    def put_off(self, key: Key, seconds: float) -> None:
        """Want no look at a key that is worked on before so many seconds are over, whatever was wanted until now."""
        self._waiting.pop(key, None)
        if key in self._timers:
            self._timers.pop(key)[1].cancel()
        self.add_after(key, seconds)

    def add_failed(self, key: Key, longest_seconds: float | None = None) -> float:
        """Want a look after a wait that doubles with each failure in a row, and return that wait in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        seconds = self._back_off.seconds(self._failures[key], random.random())
        seconds = seconds if longest_seconds is None else min(seconds, longest_seconds)
        self._observer.retried()
        self.add_after(key, seconds)
        return seconds

    def forgive(self, key: Key) -> None:
        """Forget past failures."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Failures in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> Key | None:
        """Wait for a key; None once the queue is stopped. Say `done` when the work ended."""
        key = await self._ready.get()
        if key is None or self._stopped:
            self._ready.put_nowait(None)  # For the next worker.
            return None
        now = self._clock()
        self._observer.started(self._ready.qsize(), now - self._waiting.pop(key))
        self._working[key] = now
        return key

    def done(self, key: Key) -> None:
        """The work on a key ended."""
        self._observer.finished(self._clock() - self._working.pop(key))
        if key in self._waiting:
            self._ready.put_nowait(key)

    def stop(self) -> None:
        """Give out no more keys; those that are worked on may end."""
        self._stopped = True
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.put_nowait(None)

    def working_seconds(self) -> list[float]:
        """For how long each key that is not done has been worked on."""
        now = self._clock()
        return [now - since for since in self._working.values()]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits, is worked on, or failed; keys that are due later may be left."""
        return not (self._waiting or self._working or self._failures)

    def _fire(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)
