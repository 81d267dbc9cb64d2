"""The operator as a process: starts and stops everything in the right order.

Start: list everything (ready from then on), watch, wait for the lease, work. Stop: take no new work, finish what runs, give the lease
back, end the watch. Losing the lease ends the process: whatever a new leader does, this one does not write beside it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from diffusion_operator.application import Operator
from diffusion_operator.arguments import Arguments
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.api_client import ApiClient
from diffusion_operator.cluster.connection import Connection, connect, own_namespace
from diffusion_operator.cluster.leadership import Leadership
from diffusion_operator.cluster.lease_thread import LeaseThread, lease_thread
from diffusion_operator.cluster.store import ref
from diffusion_operator.cluster.watching import Watch
from diffusion_operator.health import metrics_server, probe_server
from diffusion_operator.metrics import OperatorMetrics
from diffusion_operator.settings import OperatorSettings

GRACE_SECONDS = 20.0
"""Running reconciles may end within this time."""
WATCH_GRACE_SECONDS = 8.0
logger = logging.getLogger(__name__)


async def run(arguments: Arguments, settings: OperatorSettings) -> int:
    """Run until told to stop, and return the exit code: 0 where somebody asked, 1 where the process could not go on.

    Raises:
        NoConnectionError: Nothing says how to reach a cluster.
    """
    connection = await connect(arguments.kubeconfig)
    metrics = OperatorMetrics()
    async with AsyncExitStack() as stack:
        identity = arguments.identity or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        leadership = None
        if arguments.leader_election:
            leadership = await stack.enter_async_context(lease_thread(_leadership(arguments, metrics, identity)))
        client = await stack.enter_async_context(_client(connection, metrics, leadership.may_write if leadership else _always))
        operator = Operator(client, settings, metrics, namespaces=arguments.namespaces, identity=identity)
        address = arguments.bind_address
        await stack.enter_async_context(probe_server(address, arguments.health_port, healthy=operator.problem, ready=operator.unready))
        await stack.enter_async_context(metrics_server(address, arguments.metrics_port, metrics.registry))
        return await _Run(arguments, connection, operator, leadership, metrics).run()


def _client(connection: Connection, metrics: OperatorMetrics, may_write: Callable[[], bool]) -> ApiClient:
    return ApiClient(connection, may_write, lambda code, method: metrics.requests.labels(code, method).inc())


def _always() -> bool:
    return True


@asynccontextmanager
async def _leadership(arguments: Arguments, metrics: OperatorMetrics, identity: str) -> AsyncIterator[Leadership]:
    """Leadership over a connection of its own, with credentials of its own to renew."""
    namespace = arguments.lease_namespace or own_namespace() or "default"
    async with _client(await connect(arguments.kubeconfig), metrics, _always) as client:
        yield Leadership(client, ref(kinds.LEASE, namespace, arguments.lease_name), identity)


class _Run:
    def __init__(
        self, arguments: Arguments, connection: Connection, operator: Operator, leadership: LeaseThread | None, metrics: OperatorMetrics
    ) -> None:
        self._arguments, self._operator, self._leadership = arguments, operator, leadership
        self._watch = Watch(connection, operator.store, arguments.namespaces, operator.relisted)
        self._master = metrics.leader.labels(arguments.lease_name)
        self._stop = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._lost: asyncio.Task[None] | None = None

    async def run(self) -> int:
        self._on_signals()
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        synced = asyncio.create_task(self._operator.sync(), name="sync")
        await asyncio.wait({stopped, synced}, return_when=asyncio.FIRST_COMPLETED)
        if not synced.done():
            synced.cancel()
            return 0
        synced.result()
        watch = asyncio.create_task(self._watch.run(), name="watch")
        started = asyncio.create_task(self._watch.started(), name="watch start")
        await asyncio.wait({watch, started, stopped}, return_when=asyncio.FIRST_COMPLETED)
        self._on_signals()  # Kopf has put its own in their place.
        lead = asyncio.create_task(self._lead(), name="lead")
        resync = asyncio.create_task(self._operator.resync_forever(self._arguments.resync_seconds), name="resync")
        relist = asyncio.create_task(self._operator.relist_forever(), name="relist")
        done, _ = await asyncio.wait({stopped, watch, lead, resync, relist}, return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping: %s", ", ".join(sorted(task.get_name() for task in done)))
        asked = stopped in done
        for task in done - {stopped}:
            if not task.cancelled() and (error := task.exception()):
                logger.error("%s ended: %s: %s", task.get_name(), type(error).__name__, error, exc_info=error)
        await self._end(lead, resync, relist, watch=watch)
        return 0 if asked else 1

    async def _lead(self) -> None:
        """Lead once the lease is here; return when it is lost."""
        if self._leadership is not None:
            await self._leadership.acquire()
            self._lost = asyncio.create_task(self._leadership.lost(), name="lost lease")
        self._master.set(1)
        self._work = asyncio.create_task(self._operator.lead(self._arguments.workers), name="work")
        await asyncio.wait({self._work, *([self._lost] if self._lost else [])}, return_when=asyncio.FIRST_COMPLETED)
        for task in (self._work, self._lost):
            if task is not None and task.done():
                await task

    async def _end(self, *others: asyncio.Task[None], watch: asyncio.Task[None]) -> None:
        for task in others:
            task.cancel()
        self._operator.stop()
        is_lost = self._lost is not None and self._lost.done()
        if self._work is not None:
            # Without the lease nothing may be written any more, not even to an end.
            await asyncio.wait({self._work}, timeout=0 if is_lost else GRACE_SECONDS)
            self._work.cancel()
        if self._leadership is not None:
            await self._leadership.release()
        self._master.set(0)
        self._watch.stop()
        await asyncio.wait({watch}, timeout=WATCH_GRACE_SECONDS)

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop.set)
