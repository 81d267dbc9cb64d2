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

    def may_write(self) -> bool:
        """As `Leadership.may_write`."""
        return self._leadership.may_write()

    async def acquire(self) -> None:
        """As `Leadership.acquire`."""
        await _run(self._leadership.acquire(), self._loop)

    async def keep(self) -> None:
        """As `Leadership.keep`."""
        await _run(self._leadership.keep(), self._loop)

    async def release(self) -> None:
        """As `Leadership.release`."""
        await _run(self._leadership.release(), self._loop)


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
        try:
            yield LeaseThread(leadership, loop)
        finally:
            await _run(opened.__aexit__(None, None, None), loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _run(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Await in this event loop what runs in the thread's; cancelled here, it is cancelled there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
