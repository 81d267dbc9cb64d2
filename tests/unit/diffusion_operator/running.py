"""Runs the operator against a cluster in memory until nothing happens any more; and a client that fails on purpose."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from diffusion_operator.application import Operator
from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import UnavailableError
from diffusion_operator.manifests.base import Manifest, Ref
from diffusion_operator.metrics import OperatorMetrics
from diffusion_operator.reconciling.work_queue import BackOff
from diffusion_operator.settings import OperatorSettings
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.scenes import NOW, SETTINGS, spec_of

METHODS = tuple(name for name, each in vars(ClusterClient).items() if inspect.iscoroutinefunction(each))
NAMESPACE = "pictures"
HASTY = BackOff(first_seconds=0.0001, longest_seconds=0.001)
TURNS = 20_000
"""Turns of the event loop after which a test says that the operator never settles."""


class KilledError(BaseException):
    """The operator's process died. No handler of errors may stop it."""


class FaultyClient:
    """Passes calls on, and fails one of them.

    Args:
        client: The true one.
        fails_at: Number of the call, from 0; None: none fails.
        before: Whether it fails before it is carried out, or after, so that only the answer is lost.
        error: What is raised.
    """

    def __init__(self, client: ClusterClient, fails_at: int | None, *, before: bool, error: BaseException) -> None:
        self.calls = 0
        for name in METHODS:
            setattr(self, name, self._wrapped(getattr(client, name), fails_at, before, error))

    def _wrapped(self, call: Callable[..., Awaitable[Any]], fails_at: int | None, before: bool, error: BaseException) -> Any:
        async def wrapped(*args: Any, **named: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == fails_at and before:
                raise error
            answer = await call(*args, **named)
            if number == fails_at:
                raise error
            return answer

        return wrapped


def unavailable() -> UnavailableError:
    return UnavailableError("the server is away")


def deployment(name: str = "klein", namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionDeployment", "metadata": metadata, "spec": spec_of(**spec)}


def reference(kind: str, name: str, api_version: str = "diffusionoperator.io/v1alpha1") -> Ref:
    return Ref(api_version, kind, NAMESPACE, name)


def condition(body: Manifest, type: str) -> dict[str, Any]:
    return next(each for each in body["status"]["conditions"] if each["type"] == type)


def said(body: Manifest, type: str = "Ready") -> tuple[str, str]:
    found = condition(body, type)
    return found["status"], found["reason"]


@asynccontextmanager
async def running(
    cluster: FakeCluster,
    client: Any = None,
    *,
    settings: OperatorSettings = SETTINGS,
    now: Callable[[], datetime] = lambda: NOW,
    back_off: BackOff = HASTY,
) -> AsyncIterator[Operator]:
    """An operator that leads. Ends with whatever killed it, or else gracefully."""
    operator = Operator(client or cluster, settings, OperatorMetrics(), now=now, back_off=back_off)
    cluster.stores.append(operator.store)
    work: asyncio.Task[None] | None = None
    try:
        await operator.sync()
        work, test = asyncio.create_task(operator.lead(2)), asyncio.current_task()
        assert test is not None
        work.add_done_callback(lambda done: test.cancel() if done.exception() else None)  # A test shall not wait for the dead.
        yield operator
    finally:
        cluster.stores.remove(operator.store)
        if work is not None:
            operator.stop()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work})
            work.result()


async def settled(operator: Operator) -> None:
    """Wait until the operator has nothing to do."""
    quiet = 0
    for _ in range(TURNS):
        quiet = quiet + 1 if all(each.queue.is_quiet for each in operator.controllers.values()) else 0
        if quiet > 3:
            return
        await asyncio.sleep(0)
    raise AssertionError("the operator does not come to rest")


async def served(operator: Operator, cluster: FakeCluster, broken: frozenset[str] = frozenset()) -> None:
    """Let operator and cluster work, in turns, until neither has anything to do."""
    for _ in range(200):
        await settled(operator)
        before = len(cluster.objects), cluster.run_deployments(broken)
        cluster.run_jobs()
        await settled(operator)
        if before == (len(cluster.objects), False):
            return
    raise AssertionError("the rollout does not come to an end")
