"""Watches the cluster with Kopf, which lists, follows, reconnects and renews credentials. Its events go into the store, and no further.

Only Kopf's lowest level is used: its handlers above would put annotations and finalizers on users' objects. Where a watch was broken
for too long Kopf lists anew, and tells of what is there, but not of what was deleted meanwhile; so whoever can is asked to list that kind.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import kopf

from diffusion_operator.cluster.connection import Connection
from diffusion_operator.cluster.kinds import HELD, Kind
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest

logger = logging.getLogger(__name__)


class Watch:
    """Kopf, running inside this event loop."""

    def __init__(self, connection: Connection, store: ObjectStore, namespaces: Sequence[str], relisted: Callable[[Kind], None]) -> None:
        """`relisted` is told of a kind whenever Kopf lists it, once for each object."""
        self._connection, self._store, self._namespaces, self._relisted = connection, store, tuple(namespaces), relisted
        self._stop, self._ready = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Watch until told to stop; ends on its own only where Kopf finds no way to go on."""
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
            stop_flag=self._stop,
            ready_flag=self._ready,
            # Kopf would else make one of the user's name, and a container's user may have none.
            identity=cast(Any, "diffusion-operator"),
        )

    async def started(self) -> None:
        """Wait until Kopf has set up its tasks and its handlers of signals, so that others may take the latter over."""
        await self._ready.wait()

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return await self._connection.for_kopf()

        for kind in HELD:
            if kind.watched:
                self._register(registry, kind)
        return registry

    def _register(self, registry: kopf.OperatorRegistry, kind: Kind) -> None:
        @kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=registry)
        async def seen(event: kopf.RawEvent, **_: Any) -> None:
            self.take(kind, event)

    def take(self, kind: Kind, event: kopf.RawEvent) -> None:
        """Put into the store what an event tells."""
        body: Manifest = dict(event["object"])
        if event["type"] == "DELETED":  # Or it lost a label by which it is watched.
            self._store.forget(kind, body)
            return
        self._store.put(kind, body)
        if event["type"] is None:
            self._relisted(kind)


class NoDifferences(kopf.DiffBaseStorage):
    """Kopf compares each object with the one before, by copies that took a third of the operator's time. Nobody asks for it here."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Give nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Know of nothing before."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Write nothing on anybody's object."""


class Endless:
    """Waits between attempts that never end: an API server that is away comes back."""

    def __iter__(self) -> Iterator[float]:
        """Give 0.2 s, then longer ones up to 5 s, for ever."""
        return itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(5.0))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Which kinds there are is asked at the start; watching CRDs and namespaces would need more rights.
    settings.scanning.disabled = True
    settings.networking.error_backoffs = Endless()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 5
    settings.queueing.idle_timeout = 1.0
    settings.persistence.diffbase_storage = NoDifferences()
    settings.process.ultimate_exiting_timeout = None
    for kind in HELD:
        if kind.watched and kind.selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    return settings
