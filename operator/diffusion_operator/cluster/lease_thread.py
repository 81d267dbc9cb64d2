"""Leadership in a thread of its own: the operator's event loop may be busy with thousands of objects for longer than a lease lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from diffusion_operator.cluster.leadership import Leadership

T = TypeVar("T")


class LeaseThread:
    """A `Leadership` that others await from their event loop, and that runs in the event loop of a thread; see `lease_thread`."""

    def __init__(self, leadership: Leadership, loop: asyncio.AbstractEventLoop) -> None:
        self._leadership, self._loop = leadership, loop
        self._keeping: asyncio.Task[None] | None = None

    def may_write(self) -> bool:
        """As `Leadership.may_write`."""
        return self._leadership.may_write()

    async def acquire(self) -> None:
        """As `Leadership.acquire`; from then on it is kept, however long it takes until somebody asks for `lost`."""
        await _run(self._acquire(), self._loop)

    async def lost(self) -> None:
        """Return when the lease could not be kept, as `Leadership.keep` does, or was given back; await it after `acquire`."""
        assert self._keeping is not None
        await _run(_ended(self._keeping), self._loop)

    async def release(self) -> None:
        """As `Leadership.release`; nothing where this replica does not lead."""
        await _run(self._release(), self._loop)

    async def _acquire(self) -> None:
        await self._leadership.acquire()
        self._keeping = asyncio.create_task(self._leadership.keep(), name="keep the lease")

    async def _release(self) -> None:
        if self._keeping is None:
            return
        self._keeping.cancel()
        await asyncio.wait({self._keeping})
        is_lost = not self._keeping.cancelled() and self._keeping.exception() is None
        self._keeping = None
        if not is_lost:
            await self._leadership.release()


@asynccontextmanager
async def lease_thread(opened: AbstractAsyncContextManager[Leadership]) -> AsyncIterator[LeaseThread]:
    """Run a leadership in a thread while inside.

    A process that hangs keeps the lease thereby; the kubelet's probe, which the operator's own event loop answers, ends it.

    Args:
        opened: Is entered and left in the thread, so that its client belongs to that thread's event loop.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lease", daemon=True)
    thread.start()
    try:
        leadership = await _run(opened.__aenter__(), loop)
        lease = LeaseThread(leadership, loop)
        try:
            yield lease
        finally:
            await lease.release()
            await _run(opened.__aexit__(None, None, None), loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for a task without cancelling it where the wait is cancelled, and raise what it raised."""
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _run(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Await in this event loop what runs in the thread's; cancelled here, it is cancelled there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
