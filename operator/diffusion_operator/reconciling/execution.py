"""Carries out a plan: deletes, applies what differs, writes the status if it changed, tells events. In this order, so that whatever
fails, and wherever the operator dies, the next look finds a state from which the same plan leads on. What is deleted may stand in the
way of what is applied: KEDA's admission refuses a ScaledObject beside a HorizontalPodAutoscaler of the same target.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from diffusion_api.base import API_VERSION
from diffusion_api.deployment import DiffusionDeploymentStatus
from diffusion_api.engine import DiffusionEngineStatus
from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import LeftoverError, OutdatedError, TakenError
from diffusion_operator.cluster.kinds import HELD, kind_of
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest, Ref, ref_of
from diffusion_operator.observing.objects import controller, is_deleted
from diffusion_operator.planning.plan import Event
from diffusion_operator.reconciling.comparison import APPLIED, is_applied, stamped
from diffusion_operator.reconciling.event_recorder import EventRecorder

Status = DiffusionDeploymentStatus | DiffusionEngineStatus
REMEMBERED = 1000
"""Applied objects that are remembered: whoever quarrels about one comes back soon."""
logger = logging.getLogger(__name__)


class Applied(Enum):
    """What became of a child."""

    ALREADY = "it was as it shall be"
    CHANGED = "it was made or changed"
    AGAIN = "it was made or changed, in the way in which it was before"


class Executor:
    """See the module. Answers of the API server go into the store at once, so that the next plan sees what this one did."""

    def __init__(self, client: ClusterClient, store: ObjectStore, recorder: EventRecorder) -> None:
        self._client, self._store, self._recorder = client, store, recorder
        self._digests: OrderedDict[Ref, str] = OrderedDict()
        """Of what was applied last."""

    async def apply(self, manifest: Manifest) -> Applied:
        """Apply a child if it differs, and tell whether it did.

        Raises:
            LeftoverError: Another owner has it: a namesake that was deleted and is not yet gone, or one that stays.
            TakenError: Somebody else has an object of this name.
            RefusedError: The API server will not have it.
            ClusterError: The request failed.
        """
        ref, wanted = ref_of(manifest), stamped(manifest)
        kind = kind_of(ref)
        live = self._store.get(kind, ref.namespace, ref.name) if kind in HELD else None
        if live is not None:
            if is_applied(wanted, live):
                return Applied.ALREADY
            owner, holder = controller(wanted), controller(live)
            if owner and holder and owner.get("uid") != holder.get("uid"):
                other = f"{holder.get('kind')} {holder.get('name')} (uid {holder.get('uid')})"
                raise LeftoverError(f"{ref.kind} {ref.name} belongs to another owner, {other}; delete or rename one of the two")
        answer = await (self._client.apply(wanted, force=True) if live is not None else self._made(wanted, ref))
        logger.info("%s %s %s", "changed" if live else "made", ref.kind, ref.name)
        if kind in HELD:
            self._store.put(kind, answer)
        return self._noted(ref, wanted)

    def _noted(self, ref: Ref, wanted: Manifest) -> Applied:
        digest = wanted["metadata"]["annotations"][APPLIED]
        is_repeated = self._digests.pop(ref, None) == digest
        self._digests[ref] = digest
        if len(self._digests) > REMEMBERED:
            self._digests.popitem(last=False)
        return Applied.AGAIN if is_repeated else Applied.CHANGED

    async def _made(self, wanted: Manifest, ref: Ref) -> Manifest:
        """Apply what is not ours yet. Nothing is taken by force: there may be somebody's object of the same name."""
        try:
            return await self._client.apply(wanted, force=False)
        except OutdatedError as error:
            message = f"{ref.kind} {ref.name} is there already and is not the operator's; delete or rename it ({error})"
            raise TakenError(message) from None

    async def delete(self, ref: Ref) -> bool:
        """Delete a child that is held and not on its way out, and tell whether there was one."""
        kind = kind_of(ref)
        live = self._store.get(kind, ref.namespace, ref.name)
        if live is None or is_deleted(live):
            return False
        left = await self._client.delete(ref, live["metadata"]["uid"])
        logger.info("%s %s %s", "deleted" if left is None else "began to delete", ref.kind, ref.name)
        if left is None:
            self._store.forget(kind, live)
        else:
            self._store.put(kind, left)
        return True

    async def write_status(self, body: Mapping[str, Any], before: Status | None, after: Status) -> bool:
        """Write the status if it changed, and tell whether it did."""
        if before is not None and before == after:
            return False
        metadata = {name: body["metadata"][name] for name in ("name", "namespace", "uid")}
        kind = body["kind"]
        answer = await self._client.apply_status({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": after.to_wire()})
        self._store.put(kind_of(ref_of(answer)), answer)
        return True

    async def tell(self, body: Mapping[str, Any], events: tuple[Event, ...], now: datetime) -> None:
        """Tell what happened."""
        for event in events:
            await self._recorder.record(body, event, now)
