"""Why pods cannot mount their volumes. Kubernetes says it in events alone, so these are asked for where a pod waits without a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.manifests.base import Manifest, ref_of
from diffusion_operator.observing.pods import mount_trouble, waits_for_volumes_since
from diffusion_operator.planning.observed import Trouble

PATIENCE_SECONDS = 30.0
"""Volumes are mounted within this time where nothing is wrong; while a pod waits longer, its events are read so often."""
LEAST_SECONDS = 1.0
ASKED = 3
"""Pods of one owner whose events are read at once; the others wait for the same."""


@dataclass(frozen=True)
class Mounts:
    """What was found."""

    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    """By the pod's name."""
    look_again_seconds: float | None = None
    """When to look again, for no object that is watched will tell; None: no pod waits."""


async def mounts_of(client: ClusterClient, pods: Iterable[Manifest], now: datetime) -> Mounts:
    """Look at the pods of one owner."""
    ages = [((now - since).total_seconds(), pod) for pod in pods if (since := waits_for_volumes_since(pod))]
    if not ages:
        return Mounts()
    late = [pod for seconds, pod in ages if seconds >= PATIENCE_SECONDS]
    troubles = {}
    for pod in late[:ASKED]:
        found = mount_trouble(await client.events_about(ref_of(pod), pod["metadata"]["uid"]))
        if found is not None:
            troubles[pod["metadata"]["name"]] = found
    left = [PATIENCE_SECONDS - seconds for seconds, _ in ages if seconds < PATIENCE_SECONDS]
    return Mounts(troubles, max(LEAST_SECONDS, min([PATIENCE_SECONDS, *left])))
