"""Workers that take keys from a queue and reconcile them; the reaction to each kind of failure is here, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from diffusion_operator.cluster.errors import ClusterError, MissingError, OutdatedError, RefusedError, UnavailableError
from diffusion_operator.logs import reconcile_context
from diffusion_operator.metrics import OperatorMetrics
from diffusion_operator.reconciling.keys import Controller, Key, Outcome
from diffusion_operator.reconciling.settling import Settling
from diffusion_operator.reconciling.work_queue import BackOff, WorkQueue

UNAVAILABLE_SECONDS = 15.0
"""Longest wait while the API server is away."""
OUTDATED_SECONDS = 5.0
"""Longest wait where the next event brings what was missing anyway."""
logger = logging.getLogger(__name__)


class QueueMetrics:
    """A `QueueObserver` that feeds the metrics of one queue."""

    def __init__(self, metrics: OperatorMetrics, name: str) -> None:
        self._depth, self._adds = metrics.queue_depth.labels(name), metrics.queue_adds.labels(name)
        self._retries, self._waited = metrics.queue_retries.labels(name), metrics.queue_duration.labels(name)
        self._worked = metrics.work_duration.labels(name)

    def added(self, depth: int) -> None:
        """A key was added."""
        self._adds.inc()
        self._depth.set(depth)

    def retried(self) -> None:
        """A key was put off after a failure."""
        self._retries.inc()

    def started(self, depth: int, waited_seconds: float) -> None:
        """Work on a key began."""
        self._depth.set(depth)
        self._waited.observe(waited_seconds)

    def finished(self, worked_seconds: float) -> None:
        """Work on a key ended."""
        self._worked.observe(worked_seconds)


class ControllerLoop:
    """The queue and the workers of one controller."""

    def __init__(
        self, controller: Controller, reconcile: Callable[[Key], Awaitable[Outcome]], metrics: OperatorMetrics, back_off: BackOff
    ) -> None:
        self.controller = controller
        self.queue: WorkQueue[Key] = WorkQueue(QueueMetrics(metrics, controller), back_off)
        self._reconcile, self._metrics = reconcile, metrics
        self._settling = Settling(back_off)
        self._heard: dict[Key, int] = {}
        """Newest generation that was heard of, of objects that are not at rest."""
        metrics.unfinished.labels(controller).set_function(lambda: sum(self.queue.working_seconds()))
        metrics.longest.labels(controller).set_function(lambda: max(self.queue.working_seconds(), default=0.0))

    def want(self, key: Key, generation: int | None = None) -> None:
        """Want a look, at once unless the object is held back; `generation` is its own where it is its own change that wants it."""
        if generation is not None:
            self._heard[key] = generation
        seconds = self._settling.held_seconds(key, generation)
        if seconds > 0:
            self.queue.add_after(key, seconds)
        else:
            self.queue.add(key)

    async def run(self, workers: int) -> None:
        """Work until the queue is stopped."""
        self._metrics.workers.labels(self.controller).set(workers)
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(), name=f"{self.controller}-{number}")

    async def _work(self) -> None:
        while (key := await self.queue.get()) is not None:
            active = self._metrics.active.labels(self.controller)
            active.inc()
            try:
                with reconcile_context(key.controller, key.namespace, key.name, uuid.uuid4().hex[:12]):
                    await self.work_on(key)
            finally:
                active.dec()
                self.queue.done(key)

    async def work_on(self, key: Key) -> None:
        """Reconcile one key and say when it is due again."""
        started = time.perf_counter()
        result = "error"
        looked_at = self._heard.get(key)
        try:
            outcome = await self._reconcile(key)
            result = self._due_again(key, outcome, looked_at)
        except ClusterError as error:
            self._put_off(key, error)
        except Exception:  # A bug must not end the worker, nor the other objects' service: it is logged, counted, and tried again.
            seconds = self.queue.add_failed(key)
            logger.exception("reconcile failed; next attempt in %.1f s", seconds)
        finally:
            self._metrics.reconciles.labels(self.controller, result).inc()
            self._metrics.reconcile_time.labels(self.controller).observe(time.perf_counter() - started)
            if result == "error":
                self._metrics.reconcile_errors.labels(self.controller).inc()

    def _due_again(self, key: Key, outcome: Outcome, looked_at: int | None) -> str:
        self.queue.forgive(key)
        held_seconds = self._settling.look(key, outcome)
        has_changed = self._heard.get(key) != looked_at
        if not outcome.changed:
            self._heard.pop(key, None)
        if held_seconds > 0 and not has_changed:  # A spec that changed during this look waits for nothing.
            self.queue.put_off(key, held_seconds)
            self._metrics.unsettled.labels(self.controller).inc()
            logger.warning("its children change again and again; another field manager may undo it; next in %.1f s", held_seconds)
        elif outcome.changed:
            self.queue.add(key)
        elif outcome.requeue_seconds is None:
            return "success"
        else:
            self.queue.add_after(key, outcome.requeue_seconds)
            return "requeue_after"
        return "requeue"

    def _put_off(self, key: Key, error: ClusterError) -> None:
        match error:
            case UnavailableError():
                seconds = self.queue.add_failed(key, UNAVAILABLE_SECONDS)
            case OutdatedError() | MissingError():
                seconds = self.queue.add_failed(key, OUTDATED_SECONDS)
            case _:
                seconds = self.queue.add_failed(key)
        level = logging.WARNING if isinstance(error, RefusedError) or self.queue.failures(key) > 3 else logging.INFO
        logger.log(level, "%s: %s; next attempt in %.1f s", type(error).__name__, error, seconds)
