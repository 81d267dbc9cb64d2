"""What is around a DiffusionEngine: its Job and what the builder said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from diffusion_operator.manifests.builder_exit import BUILDER
from diffusion_operator.manifests.controller_revision import template_artifact
from diffusion_operator.manifests.labels import ENGINE
from diffusion_operator.observing.objects import (
    Body,
    condition,
    condition_holds,
    controller_uid,
    is_deleted,
    label,
    part,
    time_of,
    whole_number,
)
from diffusion_operator.observing.pods import NO_TROUBLES, ended, newest, trouble
from diffusion_operator.planning.builder_output import build_progress, builder_end
from diffusion_operator.planning.observed import ArtifactUse, JobEnd, JobPhase, ObservedJob, Trouble, TroubleKind


def job_phase(job: Body | None, pods: Sequence[Body]) -> JobPhase:
    """Where a Job is; `pods` are its own."""
    if job is None:
        return JobPhase.ABSENT
    if condition_holds(job, "Complete"):
        return JobPhase.SUCCEEDED
    if condition_holds(job, "Failed"):
        return JobPhase.FAILED
    if part(job, "spec").get("suspend") is True:
        return JobPhase.SUSPENDED
    pod = newest(pods)
    return JobPhase.RUNNING if pod is not None and part(pod, "status").get("phase") == "Running" else JobPhase.PENDING


def pods_of(job: Body | None, pods: Sequence[Body]) -> list[Body]:
    """Those pods that a Job controls."""
    uid = part(job or {}, "metadata").get("uid")
    return [pod for pod in pods if uid and controller_uid(pod) == uid]


def observed_job(job: Body | None, pods: Sequence[Body], log: str = "", unmounted: Mapping[str, Trouble] = NO_TROUBLES) -> ObservedJob:
    """See a builder's Job.

    Args:
        job: The Job; None where there is none.
        pods: Its own pods.
        log: Last lines of the newest pod's log, where they were read.
        unmounted: By name of a pod, why it cannot mount its volumes.
    """
    if job is None:
        return ObservedJob()
    phase, pod, status = job_phase(job, pods), newest(pods) or {}, part(job, "status")
    end = ended(pod, BUILDER) or {}
    # Where the builder could not write its termination message, the log has the same line.
    said = builder_end(str(end.get("message") or "")) or builder_end(log)
    failed = condition(job, "Failed") if phase is JobPhase.FAILED else None
    exit_code = end.get("exitCode")
    return ObservedJob(
        phase=phase,
        attempts=sum(whole_number(status.get(name)) for name in ("failed", "succeeded", "active")),
        started_at=time_of(status.get("startTime")),
        finished_at=time_of(status.get("completionTime") or (failed or {}).get("lastTransitionTime")),
        end=_end(failed),
        is_ending=phase in (JobPhase.PENDING, JobPhase.RUNNING) and condition_holds(job, "FailureTarget"),
        is_untold=phase in (JobPhase.SUCCEEDED, JobPhase.FAILED) and not pods,
        exit_code=exit_code if isinstance(exit_code, int) and not isinstance(exit_code, bool) else None,
        trouble=None if phase is JobPhase.SUCCEEDED else _trouble(pod, said.message if said else "", unmounted),
        progress=build_progress(log) if phase is JobPhase.RUNNING else None,
        result=said.result if said and phase is JobPhase.SUCCEEDED else None,
        message=said.message if said and not said.succeeded else "",
        log_tail=log if phase is JobPhase.FAILED else "",
    )


def artifact_use(engine: str, artifact: str, others: Iterable[Body], revisions: Iterable[Body], pods: Iterable[Body]) -> ArtifactUse:
    """Who else needs an engine's files.

    Args:
        engine: Its name.
        artifact: Path of its files below the store.
        others: The other engines of the same store.
        revisions: Deployments and ControllerRevisions of the same store; either has the pod template that its pods were made from.
        pods: The engine's own serving pods.
    """
    if any(part(body, "status", "result").get("artifact") == artifact and not is_deleted(body) for body in others):
        return ArtifactUse.SHARED
    templates = ((body, part(body, "data", "template") or part(body, "spec", "template")) for body in revisions)
    served = any(label(body, ENGINE) == engine or template_artifact(template) == artifact for body, template in templates)
    return ArtifactUse.SERVED if served or any(True for _ in pods) else ArtifactUse.NONE


def _trouble(pod: Body, said: str, unmounted: Mapping[str, Trouble]) -> Trouble | None:
    """The newest pod's trouble; in the builder's own sentence where it had one."""
    found = trouble(pod) or unmounted.get(str(part(pod, "metadata").get("name")))
    return Trouble(found.kind, said) if found and said and found.kind is TroubleKind.CRASHED else found


def _end(failed: Body | None) -> JobEnd | None:
    reason = (failed or {}).get("reason")
    return next((end for end in JobEnd if end.value == reason), None)
