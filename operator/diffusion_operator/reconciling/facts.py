"""What the cluster as a whole is: asked now and then, for it changes seldom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from diffusion_operator.cluster.client import ClusterClient, Served
from diffusion_operator.cluster.kinds import POD_MONITOR, SCALED_OBJECT, Kind
from diffusion_operator.planning.observed import Cluster

NODES_SECONDS = 30.0
"""A pod that finds no node is told of no other node for so long."""


class ClusterFacts:
    """Remembers what was asked."""

    def __init__(self, client: ClusterClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self.served = Served(frozenset())
        self._nodes: tuple[Mapping[str, str], ...] | None = None
        self._nodes_at: float | None = None

    async def refresh(self) -> bool:
        """Ask anew which APIs there are, and tell whether they changed."""
        before = self.served
        self.served = await self._client.served()
        return before != self.served

    def forgo(self, kind: Kind) -> None:
        """Take an optional kind for one that is not served: the operator may not list it."""
        self.served = replace(self.served, kinds=self.served.kinds - {kind})

    async def cluster(self, *, with_nodes: bool) -> Cluster:
        """Return the facts as planning wants them; nodes only where a pod finds none, for a cluster may have thousands."""
        return Cluster(
            keda=SCALED_OBJECT in self.served.kinds,
            custom_metrics=self.served.custom_metrics,
            pod_monitors=POD_MONITOR in self.served.kinds,
            node_labels=await self._node_labels() if with_nodes else None,
        )

    async def _node_labels(self) -> tuple[Mapping[str, str], ...] | None:
        now = self._clock()
        if self._nodes_at is None or now - self._nodes_at > NODES_SECONDS:
            self._nodes, self._nodes_at = await self._client.node_labels(), now
        return self._nodes
