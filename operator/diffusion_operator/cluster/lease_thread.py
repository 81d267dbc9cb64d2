"""Leadership in a thread of its own: the operator's event loop may be busy with thousands of objects for longer than a lease lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from diffusion_operator.cluster.leadership import Leadership

T = TypeVar("T")


class LeaseThread:
    """A `Leadership` that others await from their event loop, and that runs in the event loop of a thread. Use as a context manager.

    A process that hangs keeps the lease thereby; the kubelet's probe, which the operator's own event loop answers, ends it.
    """

    def __init__(self, open_leadership: Callable[[], AbstractAsyncContextManager[Leadership]]) -> None:
        """`open_leadership` is entered and left in the thread, so that its client belongs to that thread's event loop."""
        self._context = open_leadership()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lease", daemon=True)

    async def __aenter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        try:
            self._leadership = await self._run(self._context.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End the thread."""
        try:
            await self._run(self._context.__aexit__(None, None, None))
        finally:
            self._stop()

    async def acquire(self) -> None:
        """As `Leadership.acquire`."""
        await self._run(self._leadership.acquire())

    async def keep(self) -> None:
        """As `Leadership.keep`."""
        await self._run(self._leadership.keep())

    async def release(self) -> None:
        """As `Leadership.release`."""
        await self._run(self._leadership.release())

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await in this event loop what runs in the thread's; cancelled here, it is cancelled there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
