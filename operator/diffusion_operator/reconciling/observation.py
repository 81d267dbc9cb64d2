"""Gathers what planning looks at: from the store, and by a request where the store does not hold it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.engine import DiffusionEngine
from diffusion_api.optimization import Calibration
from diffusion_api.parsing import InvalidSpecError, parse_engine
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import ClusterClient
from diffusion_operator.cluster.errors import ClusterError, MissingError, RefusedError
from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.cluster.store import ObjectStore, ref
from diffusion_operator.manifests.base import Manifest, ref_of
from diffusion_operator.manifests.builder_exit import BUILDER
from diffusion_operator.manifests.controller_revision import template_artifact, template_store
from diffusion_operator.manifests.engine_store import have_one_store, store_address
from diffusion_operator.manifests.labels import (
    COMPONENT,
    DEPLOYMENT,
    ENGINE,
    MANAGED_BY,
    MANAGER,
    RETRY_ANNOTATION,
    REVISION,
    SERVING,
    selector_text,
)
from diffusion_operator.observing.builds import artifact_use, job_phase, observed_job, pods_of
from diffusion_operator.observing.deployments import (
    autoscaler_problems,
    first_metric_seconds,
    observed_engine,
    orphaned_records,
    revision_pods,
    revision_records,
)
from diffusion_operator.observing.objects import Body, annotation, condition, controller_uid, label, part, time_of
from diffusion_operator.observing.pods import ended, files_missing_at, newest
from diffusion_operator.planning.engine import cleanup_name, job_name
from diffusion_operator.planning.engine_identity import engine_identity, kept_prompts
from diffusion_operator.planning.observed import (
    ArtifactUse,
    EngineState,
    JobPhase,
    ObservedBuild,
    ObservedDeployment,
    ObservedEngine,
    ObservedJob,
    Trouble,
    TroubleKind,
)
from diffusion_operator.reconciling.engine_users import EngineUsers
from diffusion_operator.reconciling.facts import ClusterFacts
from diffusion_operator.reconciling.mounts import mounts_of
from diffusion_operator.settings import OperatorSettings, PvcStore

DELETABLE = (kinds.AUTOSCALER, kinds.SCALED_OBJECT, kinds.CLAIM_TEMPLATE)
LOG_LINES = 50
LOG_BYTES = 16_000
LOG_LIMIT = 1 << 20
"""Bytes of a log that are asked for. Of the last lines the kubelet gives the first bytes, so this is far more than they usually have."""
logger = logging.getLogger(__name__)


class Observation:
    """See the module."""

    def __init__(
        self, client: ClusterClient, store: ObjectStore, facts: ClusterFacts, users: EngineUsers, settings: OperatorSettings
    ) -> None:
        self._client, self._store, self._facts, self._users, self._settings = client, store, facts, users, settings

    async def deployment(self, resource: DiffusionDeployment, now: datetime) -> ObservedDeployment:
        """Gather what is around a DiffusionDeployment. Children of a namesake that was deleted are not its own; their pods still count."""
        namespace, name, uid = resource.metadata.namespace or "", resource.metadata.name, resource.metadata.uid
        prompts = await self._prompts(namespace, resource.spec.optimization.calibration) or self._kept_prompts(resource)
        identity = engine_identity(resource.spec, prompts, self._settings)
        self._users.want(namespace, name, identity.name)
        found = {kind: self._store.labelled(kind, namespace, DEPLOYMENT, name) for kind in (kinds.REVISION, kinds.SERVING, *DELETABLE)}
        own = {kind: [body for body in bodies if controller_uid(body) == uid] for kind, bodies in found.items()}
        bodies = self._store.labelled(kinds.POD, namespace, DEPLOYMENT, name)
        mounts = await mounts_of(self._client, bodies, now)
        pods = revision_pods(own[kinds.SERVING], bodies, mounts.troubles)
        troubles = [each.trouble.kind for each in pods.values() if each.trouble]
        engine, records = self._engine(namespace, identity.name), revision_records(own[kinds.REVISION])
        others = {record.engine for record in records if record.name in pods and pods[record.name].held} - {identity.name}
        seen = [engine, *(self._engine(namespace, each) for each in sorted(others))]
        scalers, metric_seconds = [*own[kinds.AUTOSCALER], *own[kinds.SCALED_OBJECT]], first_metric_seconds(pods.values(), now)
        waits = [each for each in (mounts.look_again_seconds, metric_seconds if scalers else None) if each]
        return ObservedDeployment(
            engine=engine,
            prompts=prompts,
            results={each.name: each.result for each in seen if each and each.result},
            records=records,
            orphans=orphaned_records(own[kinds.SERVING], records),
            deployments=pods,
            children=frozenset(ref_of(body) for kind in DELETABLE for body in own[kind]),
            cluster=await self._facts.cluster(with_nodes=TroubleKind.UNSCHEDULABLE in troubles),
            autoscaler_problems=autoscaler_problems(scalers, serves=metric_seconds == 0),
            look_again_seconds=min(waits, default=None),
        )

    async def build(self, engine: DiffusionEngine, body: Manifest, now: datetime) -> ObservedBuild:
        """Gather what is around a DiffusionEngine; `body` is the same as the API server gives it."""
        namespace, name = engine.metadata.namespace or "", engine.metadata.name
        retry = annotation(body, RETRY_ANNOTATION)
        pods = self._store.labelled(kinds.POD, namespace, ENGINE, name)
        mounts = await mounts_of(self._client, (pod for pod in pods if label(pod, COMPONENT) != SERVING), now)
        job = await self._job(engine, job_name(name, retry), mounts.troubles)
        cleanup = self._store.get(kinds.JOB, namespace, cleanup_name(name))
        starts = job.phase is JobPhase.ABSENT and not (engine.status and engine.status.result)
        users = len(self._users.of(namespace, name))
        return ObservedBuild(
            job=job,
            cleanup=job_phase(cleanup, pods_of(cleanup, pods)),
            cleanup_failed_at=time_of((condition(cleanup or {}, "Failed") or {}).get("lastTransitionTime")),
            users=users,
            artifact_use=ArtifactUse.NONE if users else self._artifact_use(engine),
            store_exists=starts and await self._store_exists(namespace),
            files_missing_at=files_missing_at(self._readers(engine, job, pods)),
            retry=retry,
            managed=label(body, MANAGED_BY) == MANAGER,
            prompts=await self._prompts(namespace, engine.spec.optimization.calibration) if starts else None,
            cluster=await self._facts.cluster(with_nodes=job.trouble is not None and job.trouble.kind is TroubleKind.UNSCHEDULABLE),
            look_again_seconds=mounts.look_again_seconds,
        )

    def _artifact_use(self, engine: DiffusionEngine) -> ArtifactUse:
        """Who else needs its files: somebody in its namespace, or in one of those with which it shares the store, or shared it."""
        namespace, name = engine.metadata.namespace or "", engine.metadata.name
        if engine.status is None or engine.status.result is None:
            return ArtifactUse.NONE
        others = (body for body in self._neighbours(kinds.ENGINE, namespace) if body["metadata"]["uid"] != engine.metadata.uid)
        revisions = (
            body for kind in (kinds.SERVING, kinds.REVISION) for body in (*self._neighbours(kind, namespace), *self._left(kind, namespace))
        )
        pods = (pod for pod in self._store.labelled(kinds.POD, namespace, ENGINE, name) if label(pod, COMPONENT) == SERVING)
        return artifact_use(name, engine.status.result.artifact, others, revisions, pods)

    def _readers(self, engine: DiffusionEngine, job: ObservedJob, pods: Sequence[Manifest]) -> list[Manifest]:
        """Serving pods that read the files of the newest build; those of an earlier one that lay elsewhere, or of the store as the settings
        had it before, say nothing about it."""
        result = job.result or (engine.status.result if engine.status else None)
        readers = []
        for pod in pods:
            serving = self._store.get(kinds.SERVING, pod["metadata"]["namespace"], label(pod, REVISION))
            template = part(serving or {}, "spec", "template")
            is_of_build = result is None or template_artifact(template) in ("", result.artifact)
            is_of_store = serving is None or template_store(template) == store_address(self._settings, pod["metadata"]["namespace"])
            if label(pod, COMPONENT) == SERVING and is_of_build and is_of_store:
                readers.append(pod)
        return readers

    def _neighbours(self, kind: Kind, namespace: str) -> Iterator[Manifest]:
        """The objects of a kind in all namespaces that have one engine store."""
        for other, name in self._store.names(kind):
            body = self._store.get(kind, other, name) if have_one_store(self._settings, namespace, other) else None
            if body is not None:
                yield body

    def _left(self, kind: Kind, namespace: str) -> Iterator[Manifest]:
        """Revisions of other namespaces that the settings once let share this namespace's store: they read it as long as they are."""
        address = store_address(self._settings, namespace)
        for other, name in self._store.names(kind) if address else ():
            body = self._store.get(kind, other, name) if other != namespace else None
            if body is not None and template_store(part(body, "data", "template") or part(body, "spec", "template")) == address:
                yield body

    def _engine(self, namespace: str, name: str) -> ObservedEngine | None:
        body = self._store.get(kinds.ENGINE, namespace, name)
        if body is None:
            return None
        try:
            return observed_engine(parse_engine(body))
        except InvalidSpecError as error:
            return ObservedEngine(name, EngineState.FAILED, str(error))

    async def _job(self, engine: DiffusionEngine, name: str, unmounted: Mapping[str, Trouble]) -> ObservedJob:
        namespace, uid = engine.metadata.namespace or "", engine.metadata.uid
        job = self._store.get(kinds.JOB, namespace, name)
        if job is None or controller_uid(job) != uid:
            return ObservedJob()
        pods = pods_of(job, self._store.labelled(kinds.POD, namespace, ENGINE, engine.metadata.name))
        observed = observed_job(job, pods, unmounted=unmounted)
        if observed.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED) and ended(newest(pods) or {}, BUILDER) is None:
            # The Job's end may be seen before its pod's; a build must not seem to have said nothing because of it.
            pods = pods_of(job, await self._fresh_pods(namespace, engine.metadata.name))
            observed = observed_job(job, pods)
        log = await self._log(engine, observed, newest(pods))
        return observed_job(job, pods, log) if log else observed

    async def _fresh_pods(self, namespace: str, engine: str) -> list[Manifest]:
        listing = await self._client.list(kinds.POD, namespace, selector_text({ENGINE: engine, MANAGED_BY: MANAGER}))
        for pod in listing.items:
            self._store.put(kinds.POD, pod)
        return list(listing.items)

    async def _log(self, engine: DiffusionEngine, job: ObservedJob, pod: Body | None) -> str:
        """Last lines of the builder's log where they say something new; those of a failure that is recorded come from the status."""
        status = engine.status
        if job.phase is JobPhase.FAILED and status and status.failure and status.failure.log_tail and status.finished_at == job.finished_at:
            return status.failure.log_tail
        silent = job.phase is JobPhase.SUCCEEDED and job.result is None and not (status and status.result)
        if pod is None or not (silent or job.phase in (JobPhase.RUNNING, JobPhase.FAILED)):
            return ""
        try:
            return (await self._client.log_tail(ref_of(pod), BUILDER, LOG_LINES, LOG_LIMIT))[-LOG_BYTES:]
        except (MissingError, RefusedError):
            return ""  # The container never started, or its log is gone.
        except ClusterError as error:
            if silent:
                raise  # The log alone can tell the result.
            # The API server asks the node's kubelet, which may be dead; all else can be planned without the log.
            logger.info("the log of pod %s cannot be read: %s", pod["metadata"]["name"], error)
            return ""

    async def _store_exists(self, namespace: str) -> bool:
        store = self._settings.engine_store
        if not isinstance(store, PvcStore) or not store.create:
            return False
        return await self._client.get(ref(kinds.CLAIM, namespace, store.claim_name)) is not None

    def _kept_prompts(self, resource: DiffusionDeployment) -> tuple[str, ...] | None:
        in_use = resource.status.engine if resource.status else None
        if resource.spec.optimization.calibration.prompts_config_map is None or in_use is None:
            return None
        body = self._store.get(kinds.ENGINE, resource.metadata.namespace or "", in_use.name)
        try:
            return kept_prompts(resource.spec, parse_engine(body), self._settings) if body else None
        except InvalidSpecError:
            return None

    async def _prompts(self, namespace: str, calibration: Calibration) -> tuple[str, ...] | None:
        named = calibration.prompts_config_map
        if named is None:
            return None
        body = await self._client.get(ref(kinds.CONFIG_MAP, namespace, named.name))
        text = part(body or {}, "data").get(named.key)
        return tuple(line.strip() for line in text.splitlines() if line.strip()) or None if isinstance(text, str) else None
