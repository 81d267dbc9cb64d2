"""Of several replicas one writes: the holder of a Lease.

The rules are those of client-go's leader election. Clocks of different machines are never compared: a follower counts from the moment
at which it saw the Lease change. (`kubernetes.aio.leaderelection` never gives a lease back and renews without a time limit.)
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import ClusterError, RefusedError, UnavailableError
from diffusion_operator.manifests.base import Manifest, Ref
from diffusion_operator.observing.objects import part

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """In seconds. A dead leader is succeeded after `lease + retry` at most, here 12 s."""

    lease: float = 10.0
    """A lease that did not change for so long is free."""
    renew: float = 7.0
    """A leader that could not renew for so long stops; less than `lease`, so that two never write."""
    retry: float = 2.0
    """Time between two attempts."""


class Leadership:
    """Takes the Lease, keeps it, gives it back."""

    def __init__(
        self,
        client: ClusterClient,
        lease: Ref,
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._lease, self._identity, self._times, self._clock = client, lease, identity, times, clock
        self._seen: tuple[str, float] | None = None
        """Resource version of the Lease as it was last seen to change, and when."""
        self._is_ours = False
        self._until = -math.inf

    def may_write(self) -> bool:
        """Tell whether this replica leads by the clock, from any thread, whatever `keep` has come to notice.

        A process that was stopped, or an event loop that was busy for longer than a lease lasts, must not go on with what it had begun.
        """
        return self._clock() < self._until

    async def acquire(self) -> None:
        """Wait until this is the leader."""
        began = self._clock()
        while not await self._attempt(self._times.retry):
            await asyncio.sleep(self._times.retry)
            began = self._clock()
        self._until = began + self._times.renew
        logger.info("this replica leads: lease %s/%s, holder %s", self._lease.namespace, self._lease.name, self._identity)

    async def keep(self) -> None:
        """Renew until that fails for too long; then return, and whatever writes must stop at once.

        Neither a wait nor a request that hangs goes beyond that time, which counts from the beginning of the last request that succeeded.
        """
        try:
            while (left := self._until - self._clock()) > 0:
                await asyncio.sleep(min(self._times.retry, left))
                began = self._clock()
                if await self._attempt(min(self._times.retry, self._until - began)):
                    self._until = began + self._times.renew
                elif self._seen is not None and not self._is_ours:
                    break
        finally:
            self._until = -math.inf
        logger.error("this replica leads no longer: the lease could not be renewed")

    async def release(self) -> None:
        """Give the lease back, so that another replica need not wait for its end; from now on this one writes nothing."""
        self._until = -math.inf
        try:
            async with asyncio.timeout(self._times.retry):
                lease = await self._client.get(self._lease)
                if lease is not None and part(lease, "spec").get("holderIdentity") == self._identity:
                    await self._client.replace(self._held(lease, holder="", seconds=1))
                    logger.info("gave the lease back")
        except (ClusterError, TimeoutError) as error:
            logger.warning("the lease was not given back: %s", error)

    async def _attempt(self, seconds: float) -> bool:
        if seconds <= 0:
            return False
        try:
            async with asyncio.timeout(seconds):
                return await self._try()
        except TimeoutError:
            logger.warning("the lease could not be asked for within %.1f s", seconds)
        except RefusedError as error:
            needed = f"the operator needs get, create and update of leases (coordination.k8s.io) in namespace {self._lease.namespace}"
            logger.warning("no replica can lead, for the lease %s is refused: %s; %s", self._lease.name, error, needed)
        except ClusterError as error:
            level = logging.WARNING if isinstance(error, UnavailableError) else logging.INFO
            logger.log(level, "the lease was not taken: %s", error)
        return False

    async def _try(self) -> bool:
        lease = await self._client.get(self._lease)
        if lease is None:
            self._note(await self._client.create(self._held(None, self._identity, self._times.lease)), self._identity)
            return True
        holder = str(part(lease, "spec").get("holderIdentity") or "")
        self._note(lease, holder)
        assert self._seen is not None
        if holder and holder != self._identity and self._clock() - self._seen[1] < self._times.lease:
            return False
        self._note(await self._client.replace(self._held(lease, self._identity, self._times.lease)), self._identity)
        return True

    def _note(self, lease: Manifest, holder: str) -> None:
        version = str(lease["metadata"].get("resourceVersion"))
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        self._is_ours = holder == self._identity

    def _held(self, lease: Manifest | None, holder: str, seconds: float) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(part(lease or {}, "spec"))
        if spec.get("holderIdentity") != holder:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + bool(lease and holder)}
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": int(seconds), "renewTime": now}
        metadata = dict(lease["metadata"]) if lease else {"name": self._lease.name, "namespace": self._lease.namespace}
        return {"apiVersion": kinds.LEASE.api_version, "kind": kinds.LEASE.name, "metadata": metadata, "spec": spec}
