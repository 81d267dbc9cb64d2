"""Brings one object to what its spec asks for, as far as is possible now: observe, plan, carry out. Knows neither queue nor clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeVar

from diffusion_api.deployment import DiffusionDeploymentStatus
from diffusion_api.engine import DiffusionEngineStatus
from diffusion_api.parsing import InvalidSpecError, parse_deployment, parse_engine
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.errors import LeftoverError, MissingError, RefusedError, TakenError
from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest, ref_of
from diffusion_operator.observing.objects import is_deleted, read_status, time_of
from diffusion_operator.planning.deployment import plan_deployment
from diffusion_operator.planning.engine import plan_engine
from diffusion_operator.planning.observed import JobPhase
from diffusion_operator.planning.plan import Plan
from diffusion_operator.planning.refused import plan_refused, plan_unreadable
from diffusion_operator.reconciling.execution import Applied, Executor
from diffusion_operator.reconciling.keys import Controller, Key, Outcome
from diffusion_operator.reconciling.observation import Observation
from diffusion_operator.settings import OperatorSettings

Status = TypeVar("Status", DiffusionDeploymentStatus, DiffusionEngineStatus)
PROGRESS_SECONDS = 10.0
"""A builder's log is read so often for its progress."""
LEFTOVER_SECONDS = 60.0
"""Children of a deleted namesake are gone by this age of a new object; what another owner has later is told."""
logger = logging.getLogger(__name__)


class StatusObserver(Protocol):
    """Is told of every status that was written, for metrics."""

    def changed(self, before: object, after: object) -> None:
        """A status changed."""


@dataclass(frozen=True)
class Reconciler:
    """See the module."""

    store: ObjectStore
    observation: Observation
    executor: Executor
    settings: OperatorSettings
    now: Callable[[], datetime]
    status_observer: StatusObserver

    async def reconcile(self, key: Key) -> Outcome:
        """Look at an object and do what is to be done.

        Raises:
            ClusterError: A request failed; how says when to look again. A refusal is in the object's status by then.
        """
        kind = key.controller.kind
        body = self.store.get(kind, key.namespace, key.name)
        if body is None or is_deleted(body):
            return Outcome()  # Ownership cleans up.
        return await (self._deployment(body) if key.controller is Controller.DEPLOYMENT else self._engine(body))

    async def _deployment(self, body: Manifest) -> Outcome:
        now = self.now()
        try:
            resource = parse_deployment(body)
        except InvalidSpecError as error:
            return await self._unreadable(body, DiffusionDeploymentStatus, error, now)
        observed = await self.observation.deployment(resource, now)
        plan = plan_deployment(resource, observed, self.settings, now)
        return _at_latest(await self._carry_out(body, resource.status, plan, now), observed.look_again_seconds)

    async def _engine(self, body: Manifest) -> Outcome:
        now = self.now()
        try:
            resource = parse_engine(body)
        except InvalidSpecError as error:
            return await self._unreadable(body, DiffusionEngineStatus, error, now)
        observed = await self.observation.build(resource, body, now)
        plan = plan_engine(resource, observed, self.settings, now)
        outcome = _at_latest(await self._carry_out(body, resource.status, plan, now), observed.look_again_seconds)
        return _at_latest(outcome, PROGRESS_SECONDS if observed.job.phase is JobPhase.RUNNING else None)

    async def _unreadable(self, body: Manifest, model: type[Status], error: InvalidSpecError, now: datetime) -> Outcome:
        before = read_status(body, model)
        return await self._carry_out(body, before, plan_unreadable(body["metadata"], before or model(), error, now), now)

    async def _carry_out(self, body: Manifest, before: Status | None, plan: Plan[Status], now: datetime) -> Outcome:
        try:
            deleted = [await self.executor.delete(ref) for ref in plan.delete]
            applied = {await self.executor.apply(manifest) for manifest in plan.apply}
        except (RefusedError, LeftoverError) as error:
            if isinstance(error, LeftoverError) and _age_seconds(body, now) < LEFTOVER_SECONDS:
                raise
            said = str(error) if isinstance(error, (LeftoverError, TakenError)) else f"the API server refused: {error}"
            logger.warning("%s", said)
            refused = plan_refused(plan, before.conditions if before else (), said, now)
            await self._report(body, before, refused, now)
            raise RefusedError(str(error)) from None
        await self._report(body, before, plan, now)
        is_changed = any(deleted) or not applied <= {Applied.ALREADY}
        return Outcome(is_changed, repeated=Applied.AGAIN in applied, requeue_seconds=plan.requeue_seconds)

    async def _report(self, body: Manifest, before: Status | None, plan: Plan[Status], now: datetime) -> None:
        metadata = body["metadata"]
        if self.store.uid(kind_of_resource(body), metadata["namespace"], metadata["name"]) != metadata["uid"]:
            if ref_of(body) in plan.delete:  # The plan deleted the object itself.
                await self.executor.tell(body, plan.events, now)
            return
        try:
            written = await self.executor.write_status(body, before, plan.status)
        except MissingError:
            return  # It was deleted meanwhile.
        if written:
            self.status_observer.changed(before, plan.status)
            await self.executor.tell(body, plan.events, now)


def _at_latest(outcome: Outcome, seconds: float | None) -> Outcome:
    """The same outcome, with another look within so many seconds."""
    due = [each for each in (outcome.requeue_seconds, seconds) if each is not None]
    return replace(outcome, requeue_seconds=min(due, default=None))


def _age_seconds(body: Manifest, now: datetime) -> float:
    made_at = time_of(body["metadata"].get("creationTimestamp"))
    return (now - made_at).total_seconds() if made_at else LEFTOVER_SECONDS


def kind_of_resource(body: Manifest) -> Kind:
    """The kind of an object of ours."""
    return kinds.DEPLOYMENT if body["kind"] == kinds.DEPLOYMENT.name else kinds.ENGINE
