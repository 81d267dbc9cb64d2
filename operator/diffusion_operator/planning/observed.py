"""What exists, as the plans need it: the only window that planning has on the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from diffusion_api.conditions import Reason
from diffusion_api.engine import BuildProgress, EngineResult
from diffusion_operator.manifests.base import Ref
from diffusion_operator.manifests.controller_revision import RevisionRecord


class TroubleKind(StrEnum):
    """Why a pod does not run, or ended."""

    UNSCHEDULABLE = "Unschedulable"
    VOLUME = "Volume"
    IMAGE = "Image"
    OUT_OF_MEMORY = "OutOfMemory"
    FILES_MISSING = "FilesMissing"  # The init container found no whole engine.
    MISMATCH = "Mismatch"  # The init container found another TensorRT or another GPU than the engine's.
    CRASHED = "Crashed"


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from working, as Kubernetes or the container tells it."""

    kind: TroubleKind
    message: str
    """Scheduler's, kubelet's or container's own words, in one line."""


@dataclass(frozen=True)
class RevisionPods:
    """The Deployment of a revision and its pods."""

    desired: int = 0
    """`spec.replicas` of the Deployment."""
    existing: int = 0
    """Pods that hold a GPU or will: those that terminate count."""
    ready: int = 0
    """Pods that are ready and not terminating."""
    last_ready_at: datetime | None = None
    """When a pod of it last became ready, of those that are."""
    ready_since: datetime | None = None
    """Since when one of its pods has been ready."""
    trouble: Trouble | None = None
    """What keeps one of its pods from becoming ready."""

    @property
    def held(self) -> int:
        """Pods that this revision holds or may make at any moment."""
        return max(self.desired, self.existing)


class EngineState(StrEnum):
    """How far an engine is, read from its conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    BUILDING = "Building"
    FAILED = "Failed"
    READY = "Ready"


@dataclass(frozen=True)
class ObservedEngine:
    """An engine as a deployment sees it."""

    name: str
    state: EngineState
    message: str = ""
    """Message of its `Ready` condition."""
    reason: Reason | None = None
    """The condition's reason."""
    outside_budget: bool = False
    """Whether it failed because no recipe holds the quality budget."""
    result: EngineResult | None = None
    """What the build yielded; there whenever the state is READY."""
    made_for: str = ""
    """Name of the deployment that was the first to need it; empty where a user made it."""


@dataclass(frozen=True)
class Cluster:
    """What this cluster can do, and which nodes it has."""

    keda: bool = False
    """Whether ScaledObject is served."""
    custom_metrics: bool = False
    """Whether custom.metrics.k8s.io is served, of which a HorizontalPodAutoscaler takes pods' metrics."""
    pod_monitors: bool = False
    """Whether PodMonitor is served."""
    node_labels: tuple[Mapping[str, str], ...] | None = ()
    """Labels of each node; None where the operator may not look at nodes, or had no need to."""


@dataclass(frozen=True)
class ObservedDeployment:
    """Everything around a DiffusionDeployment."""

    engine: ObservedEngine | None = None
    """The engine of `engine_identity`, where it exists."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the ConfigMap that the spec names; where it or its key is missing those of the engine in use, and None where the spec
    asks for another engine."""
    results: Mapping[str, EngineResult] = field(default_factory=dict)
    """What builds yielded, by the engine's name: of `engine`, and of those whose revisions have pods."""
    records: tuple[RevisionRecord, ...] = ()
    """Its ControllerRevisions, in any order."""
    orphans: tuple[RevisionRecord, ...] = ()
    """What can be told of revisions whose ControllerRevision is gone and whose Deployment is there: name, engine and pod template."""
    deployments: Mapping[str, RevisionPods] = field(default_factory=dict)
    """By revision name, for each revision that has a Deployment or pods."""
    children: frozenset[Ref] = frozenset()
    """Its other children, of all kinds that the operator may delete."""
    cluster: Cluster = Cluster()
    autoscaler_problems: Mapping[str, str] = field(default_factory=dict)
    """By kind, what an autoscaler says of why it cannot scale; one that can is left out."""
    look_again_seconds: float | None = None
    """When there may be news of which no watched object tells; None: never."""


class JobPhase(StrEnum):
    """Where a Job is."""

    ABSENT = "Absent"
    SUSPENDED = "Suspended"
    PENDING = "Pending"  # No pod runs yet.
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class JobEnd(StrEnum):
    """Why a Job failed. Source: `reason` of the Job's `Failed` condition."""

    EXIT_CODE = "PodFailurePolicy"
    BACKOFF = "BackoffLimitExceeded"
    DEADLINE = "DeadlineExceeded"


@dataclass(frozen=True)
class ObservedJob:
    """A Job and what its newest pod tells."""

    phase: JobPhase = JobPhase.ABSENT
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    end: JobEnd | None = None
    """Only where it failed."""
    is_ending: bool = False
    """Whether it is about to be failed, for which it waits until its pods are gone."""
    is_untold: bool = False
    """Whether it ended and no pod is left to tell how, as when a builder is evicted in the moment in which it ends."""
    exit_code: int | None = None
    """Of the newest pod's container, where it ended."""
    trouble: Trouble | None = None
    progress: BuildProgress | None = None
    result: EngineResult | None = None
    """From the termination message, where it succeeded."""
    message: str = ""
    """The builder's own sentence, from the termination message, where it failed."""
    log_tail: str = ""


class ArtifactUse(StrEnum):
    """Who else needs the files of an engine that nothing uses."""

    NONE = "None"
    SHARED = "Shared"  # Another engine has the same files: keys of the operator may differ where the builder's are equal.
    SERVED = "Served"  # Pods may read them, though no engine but this one has them.


@dataclass(frozen=True)
class ObservedBuild:
    """Everything around a DiffusionEngine."""

    job: ObservedJob = ObservedJob()
    """The Job of `planning.engine.job_name`."""
    cleanup: JobPhase = JobPhase.ABSENT
    """The Job that removes its files."""
    cleanup_failed_at: datetime | None = None
    """When that Job failed."""
    users: int = 0
    """Deployments that use it: those that want it, and those of whose kept revisions one was made from it."""
    artifact_use: ArtifactUse = ArtifactUse.NONE
    """Who else needs its files; looked at only where it is unused."""
    store_exists: bool = False
    """Whether the claim of the engine store exists."""
    files_missing_at: datetime | None = None
    """When a serving pod last found its files gone or damaged."""
    retry: str = ""
    """Value of the annotation `diffusionoperator.io/retry`; another text asks for another attempt."""
    managed: bool = True
    """Whether the operator made it; only such engines are ever deleted."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the ConfigMap that the spec names; None where it or its key is missing."""
    cluster: Cluster = Cluster()
    look_again_seconds: float | None = None
    """As in `ObservedDeployment`."""
