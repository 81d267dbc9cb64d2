"""Two small HTTP servers: one for the kubelet's probes, one for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]
"""Says what is wrong; empty: nothing."""


@asynccontextmanager
async def probe_server(address: str | None, port: int, *, healthy: Check, ready: Check) -> AsyncIterator[None]:
    """Answer `/healthz` and `/readyz` while inside."""
    routes = [web.get("/healthz", _answer(healthy, 500)), web.get("/readyz", _answer(ready, 503))]
    async with _served(address, port, routes):
        yield


@asynccontextmanager
async def metrics_server(address: str | None, port: int, registry: CollectorRegistry) -> AsyncIterator[None]:
    """Answer `/metrics` while inside."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async with _served(address, port, [web.get("/metrics", metrics)]):
        yield


def _answer(check: Check, failure: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        problem = check()
        return web.Response(status=failure if problem else 200, text=problem or "ok")

    return answer


@asynccontextmanager
async def _served(address: str | None, port: int, routes: list[web.RouteDef]) -> AsyncIterator[None]:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
