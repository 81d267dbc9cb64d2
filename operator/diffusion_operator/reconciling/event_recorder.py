"""Tells users what happened to an object, as `kubectl describe` shows it. An event that happens again is counted, not repeated."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import ClusterError, OutdatedError
from diffusion_operator.cluster.store import ref
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.labels import MANAGER
from diffusion_operator.planning.plan import Event

NOTE_LIMIT = 1024
REMEMBERED = 10_000
logger = logging.getLogger(__name__)


class EventRecorder:
    """Writes events. A lost event is logged and costs nothing else: conditions hold the truth."""

    def __init__(self, client: ClusterClient, instance: str) -> None:
        self._client, self._instance = client, instance
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def record(self, body: Mapping[str, Any], event: Event, now: datetime) -> None:
        """Tell one event of an object."""
        manifest = _manifest(body, event, now, self._instance)
        name = manifest["metadata"]["name"]
        try:
            if name not in self._counts and await self._created(manifest):
                return
            self._counts[name] = self._counts.get(name, 1) + 1
            series = {"count": self._counts[name], "lastObservedTime": _micro_time(now)}
            await self._client.merge(ref(kinds.EVENT, manifest["metadata"]["namespace"], name), {"series": series})
        except ClusterError as error:
            self._counts.pop(name, None)
            logger.info("an event was not written: %s", error)

    async def _created(self, manifest: Manifest) -> bool:
        name = manifest["metadata"]["name"]
        try:
            await self._client.create(manifest)
        except OutdatedError:
            return False
        self._counts[name] = 1
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return True


def _manifest(body: Mapping[str, Any], event: Event, now: datetime, instance: str) -> Manifest:
    metadata = body["metadata"]
    digest = hashlib.sha256("\n".join([metadata["uid"], event.type, event.reason, event.message]).encode()).hexdigest()[:16]
    regarding = {"apiVersion": body["apiVersion"], "kind": body["kind"], "resourceVersion": metadata.get("resourceVersion", "")}
    return {
        "apiVersion": kinds.EVENT.api_version,
        "kind": kinds.EVENT.name,
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "eventTime": _micro_time(now),
        "reportingController": MANAGER,
        "reportingInstance": instance,
        "action": event.reason,
        "reason": event.reason,
        "type": event.type.value,
        "note": event.message[:NOTE_LIMIT],
        "regarding": {**regarding, "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
    }


def _micro_time(now: datetime) -> str:
    """Source: Kubernetes' MicroTime, which wants exactly six digits."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
