"""The operator: store, controllers and what connects them. Starts no watch and takes no lease; `process` does.

Until it leads it only listens, so that it can take over at once with everything in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import ClusterError, MissingError, RefusedError
from diffusion_operator.cluster.kinds import HELD, Kind
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.metrics import ObjectCollector, OperatorMetrics
from diffusion_operator.reconciling.controller import ControllerLoop
from diffusion_operator.reconciling.engine_users import EngineUsers
from diffusion_operator.reconciling.event_recorder import EventRecorder
from diffusion_operator.reconciling.execution import Executor
from diffusion_operator.reconciling.facts import ClusterFacts
from diffusion_operator.reconciling.keys import Controller, Key
from diffusion_operator.reconciling.observation import Observation
from diffusion_operator.reconciling.reconciler import Reconciler
from diffusion_operator.reconciling.routing import concerned
from diffusion_operator.reconciling.status_metrics import StatusMetrics
from diffusion_operator.reconciling.work_queue import DEFAULT_BACK_OFF, BackOff
from diffusion_operator.settings import OperatorSettings

RETRY_SECONDS = 2.0
"""Time between two attempts to list everything at the start."""
RELIST_SECONDS = 5.0
"""A watch that lists has listed everything when it tells of nothing for so long."""
STUCK_SECONDS = 600.0
"""A reconcile that takes longer hangs: each of its requests ends within half a minute."""
logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Operator:
    """See the module. Belongs to one event loop."""

    def __init__(
        self,
        client: ClusterClient,
        settings: OperatorSettings,
        metrics: OperatorMetrics,
        *,
        namespaces: Sequence[str] = (),
        identity: str = "diffusion-operator",
        now: Callable[[], datetime] = utc_now,
        back_off: BackOff = DEFAULT_BACK_OFF,
    ) -> None:
        self.store = ObjectStore()
        self.is_synced = False
        self.metrics = metrics
        self._client, self._namespaces = client, tuple(namespaces)
        self._facts = ClusterFacts(client)
        self._users = EngineUsers(self.store)
        self._status_metrics = StatusMetrics(metrics)
        metrics.registry.register(ObjectCollector(self._status_metrics.objects))
        observation = Observation(client, self.store, self._facts, self._users, settings)
        executor = Executor(client, self.store, EventRecorder(client, identity))
        self._reconciler = Reconciler(self.store, observation, executor, settings, now, self._status_metrics)
        self.controllers = {each: ControllerLoop(each, self._reconciler.reconcile, metrics, back_off) for each in Controller}
        self._leads = False
        self._stale: set[Kind] = set()
        """Kinds that a watch has listed anew, so that objects may be held that were deleted meanwhile."""
        self._is_stale = asyncio.Event()
        self.store.subscribe(self._changed)

    async def sync(self) -> None:
        """List everything, as often as it takes; then the operator is ready."""
        while not self.is_synced:
            try:
                await self.resync()
                self.is_synced = True
            except ClusterError as error:
                logger.warning("not everything could be listed yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
        logger.info("listed %d objects", sum(len(self.store.names(kind)) for kind in HELD))

    async def resync(self) -> None:
        """List everything anew, and look at every object: heals what a lost event, or anything else, left undone.

        Raises:
            ClusterError: A request failed; what was listed until then counts.
        """
        await self._facts.refresh()
        for kind in HELD:
            if kind.optional and kind not in self._facts.served.kinds:
                continue
            for namespace in self._namespaces or (None,):
                await self._list(kind, namespace)
        self._look_at_everything()

    async def resync_forever(self, seconds: float) -> None:
        """Resync so often, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.resync()
            except ClusterError as error:
                logger.warning("resync failed: %s", error)

    def relisted(self, kind: Kind) -> None:
        """Take note that a watch lists a kind anew; also at its start, for something may have gone since `sync`."""
        self._stale.add(kind)
        self._is_stale.set()

    async def relist_forever(self) -> None:
        """List what watches have listed anew once they are done with it, until cancelled."""
        while True:
            await self._is_stale.wait()
            while self._is_stale.is_set():
                self._is_stale.clear()
                await asyncio.sleep(RELIST_SECONDS)
            for kind in tuple(self._stale):
                await self._relist(kind)

    async def lead(self, workers: int) -> None:
        """Reconcile until stopped; only the leader may."""
        self._leads = True
        self._look_at_everything()
        async with asyncio.TaskGroup() as group:
            for controller in self.controllers.values():
                group.create_task(controller.run(workers), name=controller.controller.value)

    def stop(self) -> None:
        """Take no new work; `lead` returns when running reconciles have ended."""
        for controller in self.controllers.values():
            controller.queue.stop()

    def problem(self) -> str:
        """Say what is wrong with the process; empty where nothing is."""
        stuck = [each for each in self.controllers.values() if max(each.queue.working_seconds(), default=0.0) > STUCK_SECONDS]
        return f"{stuck[0].controller}: a reconcile hangs" if stuck else ""

    def unready(self) -> str:
        """Say why the process is not ready; empty where it is."""
        return "" if self.is_synced else "not everything was listed yet"

    async def _relist(self, kind: Kind) -> None:
        self._stale.discard(kind)
        try:
            changed = sum([await self._list(kind, namespace) for namespace in self._namespaces or (None,)])
        except ClusterError as error:
            logger.warning("%s could not be listed anew: %s", kind.plural, error)
            self.relisted(kind)
        else:
            logger.log(logging.INFO if changed else logging.DEBUG, "listed %s anew: %d changed unseen", kind.plural, changed)

    async def _list(self, kind: Kind, namespace: str | None) -> int:
        """List a kind into the store, and count what changed there."""
        try:
            return self.store.replace(kind, await self._client.list(kind, namespace), namespace)
        except (MissingError, RefusedError) as error:
            if not kind.optional:
                raise  # Our CRDs or our rights are missing, or this Kubernetes is too old.
            self._facts.forgo(kind)
            logger.warning("%s is left out: %s", kind.plural, error)
            return 0

    def _changed(self, kind: Kind, body: Manifest, gone: bool) -> None:
        self._status_metrics.follow(kind, body, gone)
        users = self._users.of(body["metadata"].get("namespace", ""), body["metadata"]["name"]) if gone else ()
        engines = self._users.follow(kind, body, gone)
        if not self._leads:
            return
        for key in concerned(kind, body, self._users):
            is_its_own = kind is key.controller.kind and body["metadata"]["name"] == key.name
            self._add(key, body["metadata"].get("generation") if is_its_own else None)
        for user in users:
            self._add(Key(Controller.DEPLOYMENT, body["metadata"].get("namespace", ""), user))
        for namespace, name in engines:
            self._add(Key(Controller.ENGINE, namespace, name))

    def _look_at_everything(self) -> None:
        if not self._leads:
            return
        for controller in Controller:
            for namespace, name in self.store.names(controller.kind):
                self._add(Key(controller, namespace, name))

    def _add(self, key: Key, generation: int | None = None) -> None:
        self.controllers[key.controller].want(key, generation)
