"""The plan of a DiffusionEngine: build it once, say how it goes, keep the result, delete it when nobody needs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from diffusion_api.build_job import BuildJob
from diffusion_api.checks import find_problems
from diffusion_api.conditions import ConditionType, Reason
from diffusion_api.engine import BuildFailure, BuildProgress, DiffusionEngine, DiffusionEngineStatus, EngineResult
from diffusion_operator.manifests.accelerator import node_selector, resource_claim_template, uses_claims
from diffusion_operator.manifests.base import Manifest, Owner, Ref
from diffusion_operator.manifests.builder_exit import BuilderExit, is_retryable
from diffusion_operator.manifests.builder_job import builder_job, job_config_map
from diffusion_operator.manifests.cleanup_job import cleanup_job
from diffusion_operator.manifests.engine_store import engine_store_claim, store_address
from diffusion_operator.manifests.labels import RETRY_ANNOTATION, engine_labels
from diffusion_operator.manifests.network_policy import builder_network_policy
from diffusion_operator.planning.engine_identity import PROMPTS_SECONDS, prompts_missing, spec_key, with_prompts
from diffusion_operator.planning.observed import ArtifactUse, JobEnd, JobPhase, ObservedBuild
from diffusion_operator.planning.plan import Event, EventType, Plan, transition_events
from diffusion_operator.planning.troubles import explained
from diffusion_operator.planning.verdict import Verdict, fails, holds, merged, unknown
from diffusion_operator.settings import OperatorSettings, PvcStore

EnginePlan = Plan[DiffusionEngineStatus]
READY, BUILT, GATE = ConditionType.READY, ConditionType.ENGINE_BUILT, ConditionType.QUALITY_GATE_PASSED
PROGRESSING = ConditionType.PROGRESSING
NOT_STARTED = frozenset({Reason.ENGINE_PENDING, Reason.NO_MATCHING_NODE, Reason.IMAGE_UNAVAILABLE, Reason.VOLUME_UNAVAILABLE})
"""Reasons of a build whose pod does not run yet."""
MOST_LOSSES = 3
LOSS_HOURS = 24
"""Files that are gone so soon after they were built will be gone again after another build."""
CLEANUP_HOURS = 24
"""An engine whose files cannot be removed is kept for so long."""
CLEANUP_RETRY_SECONDS = 3600.0
SERVED_SECONDS = 60.0
"""An unused engine whose time is over, and from whose files pods still serve, is looked at so often until they are gone."""


@dataclass(frozen=True)
class _Scene:
    """The arguments of `plan_engine`, for its helpers."""

    engine: DiffusionEngine
    observed: ObservedBuild
    settings: OperatorSettings
    now: datetime

    @property
    def status(self) -> DiffusionEngineStatus:
        return self.engine.status or DiffusionEngineStatus()

    @property
    def owner(self) -> Owner:
        return Owner.of(self.engine)

    @property
    def job_name(self) -> str:
        return job_name(self.engine.metadata.name, self.observed.retry)

    @property
    def files_are_gone(self) -> bool:
        missing, finished = self.observed.files_missing_at, self.observed.job.finished_at or self.status.finished_at
        return missing is not None and finished is not None and missing > finished

    @property
    def losses(self) -> int:
        """How often in a row files were lost soon after their build, with this time where they are gone now."""
        status, missing = self.status, self.observed.files_missing_at
        if status.job_name not in (None, self.job_name):
            return 0  # Somebody asked for another attempt, who may have mended the store.
        if status.result is None or status.finished_at is None or missing is None or not self.files_are_gone:
            return status.losses
        return status.losses + 1 if missing - status.finished_at < timedelta(hours=LOSS_HOURS) else 1

    @property
    def is_lost_for_good(self) -> bool:
        """Whether its files are, or were found to be, lost once too often."""
        was_built = self.status.result is not None and self.files_are_gone
        return self.losses >= MOST_LOSSES and (was_built or self.status.failure is not None)


def job_name(engine: str, retry: str) -> str:
    """Name of the Job that builds an engine; another `retry` text is another Job."""
    return f"{engine}-{hashlib.sha256(retry.encode()).hexdigest()[:8]}"


def cleanup_name(engine: str) -> str:
    """Name of the Job that takes an engine's files out of the store."""
    return f"{engine}-cleanup"


def plan_engine(engine: DiffusionEngine, observed: ObservedBuild, settings: OperatorSettings, now: datetime) -> EnginePlan:
    """Decide what to do for an engine.

    Args:
        engine: As the cluster has it, with its status: a result or a failure there is kept when the Job that yielded it is gone.
        observed: Its Job and its users.
        settings: The operator's.
        now: The time, with a time zone.
    """
    scene = _Scene(engine, observed, settings, now)
    expiry = _expiry(scene)
    is_expired = expiry is not None and now >= expiry
    if is_expired and observed.artifact_use is not ArtifactUse.SERVED:
        return _retired(scene)
    plan = _build_plan(scene)
    if expiry is None:
        return plan
    left = SERVED_SECONDS if is_expired else (expiry - now).total_seconds()
    soon = left if plan.requeue_seconds is None else min(left, plan.requeue_seconds)
    return Plan(plan.status, plan.apply, plan.delete, plan.events, soon)


def _build_plan(scene: _Scene) -> EnginePlan:
    problems = find_problems(scene.engine.spec)
    if problems:
        message = "; ".join(map(str, problems)) + "; create another engine, for this one's spec never changes"
        return _plan(scene, *_failed(problems[0].reason, message), phase="Invalid")
    job, status = scene.observed.job, scene.status
    match job.phase:
        case JobPhase.ABSENT if status.result is not None and not scene.files_are_gone:
            return _ready(scene, status.result)
        case JobPhase.ABSENT | JobPhase.SUCCEEDED if scene.is_lost_for_good:
            return _given_up(scene)
        case JobPhase.ABSENT if status.failure is not None and status.job_name == scene.job_name:
            return _plan(scene, *_kept_verdicts(status), phase="Failed", failure=status.failure)
        case JobPhase.ABSENT:
            return _started(scene) if _job(scene) else _without_prompts(scene)
        case JobPhase.SUSPENDED:
            message = f"Job {scene.job_name} waits in a queue for its admission"
            return _plan(scene, *_underway(Reason.ENGINE_QUEUED, message), phase="Queued")
        case JobPhase.PENDING | JobPhase.RUNNING:
            return _running(scene)
        case JobPhase.SUCCEEDED if scene.files_are_gone:
            return _lost(scene)
        case JobPhase.SUCCEEDED if (result := job.result or status.result) is not None:
            return _ready(scene, result)
        case JobPhase.SUCCEEDED if job.is_untold:
            return _untold(scene)
        case JobPhase.SUCCEEDED:
            message = "the builder ended well but told no result; is the builder image of this operator's release?"
            return _ended(scene, Reason.ENGINE_BUILD_FAILED, message)
        case JobPhase.FAILED:
            return _job_failed(scene)


def _job(scene: _Scene) -> BuildJob | None:
    """The job file, with the prompts of the ConfigMap that the spec names; None where these are missing. The builder reads no cluster."""
    job = scene.engine.spec.job
    if job.optimization.calibration.prompts_config_map is None:
        return job
    return with_prompts(job, scene.observed.prompts) if scene.observed.prompts else None


def _without_prompts(scene: _Scene) -> EnginePlan:
    named = scene.engine.spec.optimization.calibration.prompts_config_map
    assert named is not None
    plan = _plan(scene, *_failed(Reason.PROMPTS_NOT_FOUND, prompts_missing(named)), phase="Waiting for prompts")
    return replace(plan, requeue_seconds=PROMPTS_SECONDS)


def _started(scene: _Scene) -> EnginePlan:
    owner, settings, spec = scene.owner, scene.settings, scene.engine.spec
    job = _job(scene)
    assert job is not None
    name = scene.job_name
    apply: list[Manifest] = []
    delete: list[Ref] = []
    if isinstance(settings.engine_store, PvcStore) and settings.engine_store.create and not scene.observed.store_exists:
        apply.append(engine_store_claim(owner.namespace, settings.engine_store))
    if settings.network_policies:
        apply.append(builder_network_policy(owner))
    if uses_claims(spec.accelerator, settings):
        labels = engine_labels(owner.name)
        # One that an earlier Job of this name left may ask for what the settings no longer name, and cannot be changed.
        delete.append(Ref("resource.k8s.io/v1", "ResourceClaimTemplate", owner.namespace, name))
        apply.append(resource_claim_template(name, owner, labels, spec.accelerator, settings.dynamic_resources))
    job_file = job_config_map(name, owner, job)
    apply += [job_file, builder_job(name, owner, spec, settings, config_map=job_file["metadata"]["name"])]
    return _plan(scene, *_underway(Reason.ENGINE_PENDING, f"Job {name} is made"), phase="Pending", apply=tuple(apply), delete=tuple(delete))


def _running(scene: _Scene) -> EnginePlan:
    job, status = scene.observed.job, scene.status
    if job.is_ending and status.conditions:
        # Its pods are taken away: that it waits for one again is no news, and would hide what it did until now.
        return _plan(scene, *_kept_verdicts(status), phase=status.phase or "Building", progress=status.progress)
    if job.trouble is not None:
        selector = node_selector(scene.engine.spec.accelerator, scene.settings)
        reason, message = explained(
            job.trouble, selector, scene.observed.cluster.node_labels, pending=Reason.ENGINE_PENDING, failing=Reason.ENGINE_BUILDING
        )
        attempt = f"attempt {job.attempts} of Job {scene.job_name}: {message}"
        return _plan(scene, *_underway(reason, attempt), phase=f"Building: {job.trouble.kind.value}", progress=job.progress)
    if job.phase is JobPhase.PENDING:
        return _plan(scene, *_underway(Reason.ENGINE_PENDING, f"Job {scene.job_name} waits for its pod to start"), phase="Pending")
    # Percentages stay out of conditions, which a reader takes for changes of state.
    progress = job.progress
    phase = f"Building: {progress.stage}, {progress.percent} %" if progress else "Building"
    return _plan(scene, *_underway(Reason.ENGINE_BUILDING, f"Job {scene.job_name} builds it"), phase=phase, progress=progress)


def _ready(scene: _Scene, result: EngineResult) -> EnginePlan:
    simulated = "" if result.verified_on_engine else "; measured in torch, not on the engine"
    verdicts = (
        holds(READY, Reason.ENGINE_READY, f"{result.recipe.label} is in the engine store"),
        fails(PROGRESSING, Reason.ENGINE_READY, "the build ended"),
        holds(BUILT, Reason.ENGINE_READY, f"built as {result.recipe.label}"),
        holds(GATE, Reason.QUALITY_WITHIN_BUDGET, f"{result.quality_summary or 'quality is inside the budget'}{simulated}"),
    )
    return _plan(scene, *verdicts, phase="Ready", result=result)


def _lost(scene: _Scene) -> EnginePlan:
    """The files of a finished build are gone: its Job makes room for the next, which has the same name."""
    message = "its files in the engine store are gone or damaged; it is built again"
    return _plan(scene, *_failed(Reason.ENGINE_FILES_MISSING, message), phase="Rebuilding", delete=(_job_ref(scene),))


def _given_up(scene: _Scene) -> EnginePlan:
    """Building again does not help where files go missing as soon as they are there."""
    if scene.status.failure is not None:
        return _plan(scene, *_kept_verdicts(scene.status), phase="Failed", failure=scene.status.failure)
    message = (
        f"its files were gone or damaged {scene.losses} times in a row soon after they were built; check that builder and Triton pods "
        f"mount the same engine store and that nothing else writes to it, then {_again(scene)}"
    )
    return _plan(scene, *_failed(Reason.ENGINE_FILES_MISSING, message), phase="Failed", failure=BuildFailure(message=message[:4096]))


def _untold(scene: _Scene) -> EnginePlan:
    """The pod of a finished build is gone with what it told: the next Job finds the engine in the store and tells it again."""
    message = f"the pod of Job {scene.job_name} was removed before its result was read; the Job runs again and finds what was built"
    return _plan(scene, *_underway(Reason.ENGINE_PENDING, message), phase="Pending", delete=(_job_ref(scene),))


def _job_ref(scene: _Scene) -> Ref:
    return Ref("batch/v1", "Job", scene.owner.namespace, scene.job_name)


def _job_failed(scene: _Scene) -> EnginePlan:
    job = scene.observed.job
    if job.end is JobEnd.DEADLINE:
        return _overdue(scene)
    if job.trouble is not None and not job.message:
        reason, message = explained(job.trouble, {}, (), pending=Reason.ENGINE_BUILD_FAILED, failing=Reason.ENGINE_BUILD_FAILED)
        return _ended(scene, reason, f"{message}; then {_again(scene)}")
    code = f" with exit code {job.exit_code}" if job.exit_code is not None else ""
    said = job.message or f"the builder ended{code} and said nothing; see `kubectl logs job/{scene.job_name}`"
    advice = _again(scene) if is_retryable(job.exit_code) else "change the spec"
    return _ended(scene, Reason.ENGINE_BUILD_FAILED, f"{said.rstrip('. ')}; {advice}")


def _overdue(scene: _Scene) -> EnginePlan:
    """The deadline passed, which counts the time that a pod waits to start: what it waited for then is the reason."""
    status, job = scene.status, scene.observed.job
    if status.failure is not None and (status.job_name, status.finished_at) == (scene.job_name, job.finished_at):
        return _plan(scene, *_kept_verdicts(status), phase="Failed", failure=status.failure)
    waited = next((each for each in status.conditions if each.type is READY and each.reason in NOT_STARTED), None)
    if waited is not None and status.job_name == scene.job_name:
        what = "it" if status.attempts <= 1 else "its last attempt"
        # Pending says that nothing is wrong yet.
        reason = Reason.BUILD_DEADLINE_EXCEEDED if waited.reason is Reason.ENGINE_PENDING else waited.reason
        return _ended(scene, reason, f"{what} never started: {waited.message}; then {_again(scene)}")
    seconds = scene.settings.build.deadline_seconds
    message = f"the build took longer than {seconds} s; raise build.deadlineSeconds in the operator's settings, then {_again(scene)}"
    return _ended(scene, Reason.BUILD_DEADLINE_EXCEEDED, message)


def _ended(scene: _Scene, reason: Reason, message: str) -> EnginePlan:
    job = scene.observed.job
    failure = BuildFailure(
        message=message[:4096], exit_code=job.exit_code, retryable=is_retryable(job.exit_code), log_tail=job.log_tail[-16_384:]
    )
    verdicts = _failed(reason, message)
    if job.exit_code == BuilderExit.QUALITY_BUDGET:
        verdicts = (*verdicts[:3], fails(GATE, Reason.QUALITY_OUTSIDE_BUDGET, message))
    return _plan(scene, *verdicts, phase="Failed", failure=failure)


def _again(scene: _Scene) -> str:
    command = f"kubectl annotate de {scene.owner.name} --namespace {scene.owner.namespace} --overwrite {RETRY_ANNOTATION}=$(date +%s)"
    return f"run `{command}`"


def _underway(reason: Reason, message: str) -> tuple[Verdict, ...]:
    return (
        fails(READY, reason, message),
        holds(PROGRESSING, reason, message),
        fails(BUILT, reason, message),
        unknown(GATE, reason, "measured at the end of the build"),
    )


def _failed(reason: Reason, message: str) -> tuple[Verdict, ...]:
    return (
        fails(READY, reason, message),
        fails(PROGRESSING, reason, message),
        fails(BUILT, reason, message),
        unknown(GATE, reason, "nothing was measured"),
    )


def _kept_verdicts(status: DiffusionEngineStatus) -> tuple[Verdict, ...]:
    return tuple(Verdict(each.type, each.status, each.reason, each.message) for each in status.conditions)


def _plan(
    scene: _Scene,
    *verdicts: Verdict,
    phase: str,
    apply: tuple[Manifest, ...] = (),
    delete: tuple[Ref, ...] = (),
    progress: BuildProgress | None = None,
    failure: BuildFailure | None = None,
    result: EngineResult | None = None,
) -> EnginePlan:
    status, job = scene.status, scene.observed.job
    is_gone = job.phase is JobPhase.ABSENT
    generation = scene.engine.metadata.generation
    conditions = merged(status.conditions, verdicts, generation, scene.now)
    new = status.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "conditions": conditions,
            # The key stays what it was when the engine was made, whatever versions the operator is told later.
            "key": status.key or spec_key(scene.engine.spec.job, scene.settings),
            "job_name": scene.job_name,
            "attempts": status.attempts if is_gone else job.attempts,
            "started_at": status.started_at if is_gone else job.started_at,
            "finished_at": status.finished_at if is_gone else job.finished_at,
            "losses": scene.losses,
            "progress": progress,
            "failure": failure,
            "result": result,
            "users": scene.observed.users,
            "unused_since": None if scene.observed.users else status.unused_since or scene.now.replace(microsecond=0),
        }
    )
    return Plan(new, apply, delete, transition_events(status.conditions, conditions))


def _expiry(scene: _Scene) -> datetime | None:
    """When an engine that the operator made and nobody uses is deleted."""
    since = scene.status.unused_since
    if scene.observed.users or not scene.observed.managed or since is None:
        return None
    return since + timedelta(seconds=scene.settings.engine_retention_seconds)


def _retired(scene: _Scene) -> EnginePlan:
    """Take the files out of the store, then delete the engine.

    Files that another engine has too stay for it, and the last one takes them out.
    """
    owner, result, cleanup = scene.owner, scene.status.result, scene.observed.cleanup
    itself = Ref(scene.engine.api_version, scene.engine.kind, owner.namespace, owner.name)
    is_shared = scene.observed.artifact_use is ArtifactUse.SHARED
    if result is None or cleanup is JobPhase.SUCCEEDED or (is_shared and cleanup in (JobPhase.ABSENT, JobPhase.FAILED)):
        return Plan(scene.status, delete=(itself,))
    match cleanup:
        case JobPhase.ABSENT:
            return Plan(scene.status, apply=(cleanup_job(cleanup_name(owner.name), owner, result.artifact, scene.settings),))
        case JobPhase.FAILED:
            return _uncleaned(scene, result, itself)
        case _:
            return Plan(scene.status)


def _uncleaned(scene: _Scene, result: EngineResult, itself: Ref) -> EnginePlan:
    """Keep the engine, which alone names its files, and try again; in the end it goes all the same, and an event says what stays."""
    name, place = cleanup_name(scene.owner.name), _place(scene, result.artifact)
    told = next((each for each in scene.status.conditions if each.type is READY and each.reason is Reason.CLEANUP_FAILED), None)
    if told is not None and scene.now - told.last_transition_time >= timedelta(hours=CLEANUP_HOURS):
        message = f"{place} stays, for Job {name} could not remove it for {CLEANUP_HOURS} hours; remove it by hand"
        return Plan(scene.status, delete=(itself,), events=(Event(EventType.WARNING, Reason.CLEANUP_FAILED.value, message),))
    message = f"Job {name} cannot remove {place}: see `kubectl logs job/{name}`; it is tried every hour, for {CLEANUP_HOURS} hours"
    plan = _plan(scene, fails(READY, Reason.CLEANUP_FAILED, message), phase="Cleaning up", result=result)
    failed_at = scene.observed.cleanup_failed_at or scene.now
    left = CLEANUP_RETRY_SECONDS - (scene.now - failed_at).total_seconds()
    if left > 0:
        return replace(plan, requeue_seconds=left)
    return replace(plan, delete=(Ref("batch/v1", "Job", scene.owner.namespace, name),))


def _place(scene: _Scene, artifact: str) -> str:
    """Where an engine's files are, for people."""
    store = scene.settings.engine_store
    if isinstance(store, PvcStore):
        return f"{artifact} on claim {store.claim_name}"
    return f"{store_address(scene.settings, scene.owner.namespace)}/{artifact}"
