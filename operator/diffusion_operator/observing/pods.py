"""What a pod tells: whether it serves, whether it holds its accelerator, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from diffusion_api.prepare_exit import PrepareExit
from diffusion_operator.manifests.serving_pod import PREPARE
from diffusion_operator.observing.objects import Body, condition, condition_holds, is_deleted, items, part, time_of
from diffusion_operator.planning.observed import Trouble, TroubleKind

# Source: Kubernetes pkg/kubelet/images/types.go.
IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
# Source: Kubernetes pkg/kubelet/kuberuntime and pkg/kubelet/container.
START_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "RunContainerError"})
# Source: Kubernetes pkg/kubelet/events/event.go.
MOUNT_REASONS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
VOLUME_WORDS = ("persistentvolumeclaim", "volume node affinity", "volume binding")
MESSAGE_LIMIT = 1000
NO_TROUBLES: Mapping[str, Trouble] = MappingProxyType({})


def holds_accelerator(pod: Body) -> bool:
    """Tell whether a pod has, or waits for, its accelerator; one that terminates still has it."""
    return part(pod, "status").get("phase") not in {"Succeeded", "Failed"}


def is_serving(pod: Body) -> bool:
    """Tell whether a pod is ready and stays so."""
    return holds_accelerator(pod) and not is_deleted(pod) and condition_holds(pod, "Ready")


def ready_since(pod: Body) -> datetime | None:
    """When a pod became ready."""
    found = condition(pod, "Ready")
    return time_of(found.get("lastTransitionTime")) if found and found.get("status") == "True" else None


def trouble(pod: Body) -> Trouble | None:
    """What keeps a pod from working; None where nothing does, or where it works now."""
    if is_serving(pod):
        return None
    statuses = [*items(pod, "status", "initContainerStatuses"), *items(pod, "status", "containerStatuses")]
    found = [each for each in map(_container_trouble, statuses) if each]
    return next(iter(found), None) or _eviction(pod) or _scheduling(pod)


def waits_for_volumes_since(pod: Body) -> datetime | None:
    """Since when a pod has a node and cannot start there for no reason that its status tells; None where it starts, or tells one.

    The kubelet mounts volumes first, and says in the status when that is done. Source: Kubernetes' "Pod Lifecycle", "Pod network readiness"
    (PodReadyToStartContainers, since 1.29).
    """
    scheduled = condition(pod, "PodScheduled")
    is_stuck = part(pod, "status").get("phase") == "Pending" and not is_deleted(pod) and trouble(pod) is None
    if scheduled is None or scheduled.get("status") != "True" or not is_stuck or condition_holds(pod, "PodReadyToStartContainers"):
        return None
    return time_of(scheduled.get("lastTransitionTime"))


def mount_trouble(events: Iterable[Body]) -> Trouble | None:
    """Why a pod's volumes are not mounted, from the newest event about it that says so."""
    failures = [event for event in events if event.get("reason") in MOUNT_REASONS]
    last = max(failures, key=_seen_at, default=None)
    return Trouble(TroubleKind.VOLUME, one_line(last.get("message"))) if last is not None else None


def newest(pods: Iterable[Body]) -> Body | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: (str(part(pod, "metadata").get("creationTimestamp")), _name(pod)), default=None)


def ended(pod: Body, container: str) -> Mapping[str, Any] | None:
    """How a container ended: its `terminated` state; None where it runs or never ran."""
    status = _container(pod, container)
    return part(status, "state", "terminated") or None if status else None


def files_missing_at(pods: Iterable[Body]) -> datetime | None:
    """When a serving pod last found its engine's files gone or damaged."""
    times = []
    for pod in pods:
        end = _last_end(_container(pod, PREPARE) or {})
        if end.get("exitCode") == PrepareExit.FILES_MISSING:
            times.append(time_of(end.get("finishedAt")))
    return max((each for each in times if each), default=None)


def one_line(text: object) -> str:
    """Several lines as one; the last ones where they are many."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return " ".join(lines)[-MESSAGE_LIMIT:]


def _scheduling(pod: Body) -> Trouble | None:
    found = condition(pod, "PodScheduled")
    if found is None or found.get("status") != "False" or found.get("reason") != "Unschedulable":
        return None
    message = one_line(found.get("message"))
    is_volume = any(word in message.lower() for word in VOLUME_WORDS)
    return Trouble(TroubleKind.VOLUME if is_volume else TroubleKind.UNSCHEDULABLE, message)


def _eviction(pod: Body) -> Trouble | None:
    status = part(pod, "status")
    if status.get("phase") != "Failed" or not status.get("reason"):
        return None
    return Trouble(TroubleKind.CRASHED, one_line(f"{status['reason']}: {status.get('message', '')}"))


def _container_trouble(status: Body) -> Trouble | None:
    name, waiting = status.get("name", "container"), part(status, "state", "waiting")
    reason = waiting.get("reason")
    if reason in IMAGE_REASONS:
        return Trouble(TroubleKind.IMAGE, one_line(waiting.get("message") or f"{status.get('image')}: {reason}"))
    if reason in START_REASONS:
        return Trouble(TroubleKind.CRASHED, one_line(f"{name} cannot start: {waiting.get('message') or reason}"))
    end = _last_end(status)
    if not end or end.get("exitCode") == 0:
        return None
    if end.get("reason") == "OOMKilled":
        return Trouble(TroubleKind.OUT_OF_MEMORY, f"{name} used more than its memory limit")
    code = end.get("exitCode")
    said = one_line(end.get("message")) or f"{name} ended with exit code {code}"
    kinds: dict[object, TroubleKind] = {}
    if name == PREPARE:
        kinds = {PrepareExit.FILES_MISSING.value: TroubleKind.FILES_MISSING, PrepareExit.MISMATCH.value: TroubleKind.MISMATCH}
    return Trouble(kinds.get(code, TroubleKind.CRASHED), said)


def _last_end(status: Body) -> Body:
    """How a container ended that does not run, or that was restarted and is not ready yet."""
    now = part(status, "state", "terminated")
    return now or (part(status, "lastState", "terminated") if status.get("ready") is not True else {})


def _container(pod: Body, name: str) -> Body | None:
    statuses: Sequence[Body] = [*items(pod, "status", "initContainerStatuses"), *items(pod, "status", "containerStatuses")]
    return next((each for each in statuses if each.get("name") == name), None)


def _seen_at(event: Body) -> str:
    """Times of one form sort as texts; which field has one depends on who wrote the event."""
    series = part(event, "series").get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or part(event, "metadata").get("creationTimestamp") or "")


def _name(pod: Body) -> str:
    return str(part(pod, "metadata").get("name"))
