"""A small cluster that starts, breaks and ends pods when it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_operator.planning.observed import RevisionPods


@dataclass
class SimulatedRevision:
    """A Deployment with its ReplicaSet: pods that start, are ready, or terminate."""

    desired: int = 0
    starting: int = 0
    ready: int = 0
    leaving: int = 0

    def scale(self, replicas: int) -> None:
        self.desired = replicas
        self.reconcile()

    def reconcile(self) -> None:
        """As the ReplicaSet controller does: pods that are not ready end first."""
        alive = self.starting + self.ready
        self.starting += max(0, self.desired - alive)
        excess = max(0, alive - self.desired)
        unready = min(self.starting, excess)
        self.starting -= unready
        self.ready -= excess - unready
        self.leaving += excess

    @property
    def existing(self) -> int:
        return self.starting + self.ready + self.leaving

    def observed(self) -> RevisionPods:
        return RevisionPods(desired=self.desired, existing=self.existing, ready=self.ready)


@dataclass
class SimulatedCluster:
    revisions: dict[str, SimulatedRevision] = field(default_factory=dict)

    def observed(self) -> dict[str, RevisionPods]:
        return {name: revision.observed() for name, revision in self.revisions.items()}

    def apply(self, replicas: dict[str, int]) -> None:
        for name, count in replicas.items():
            self.revisions.setdefault(name, SimulatedRevision()).scale(count)

    @property
    def existing(self) -> int:
        return sum(revision.existing for revision in self.revisions.values())

    @property
    def ready(self) -> int:
        return sum(revision.ready for revision in self.revisions.values())

    def happen(self, event: str, name: str) -> None:
        revision = self.revisions.setdefault(name, SimulatedRevision())
        match event:
            case "start" if revision.starting:
                revision.starting, revision.ready = revision.starting - 1, revision.ready + 1
            case "break" if revision.ready:
                revision.starting, revision.ready = revision.starting + 1, revision.ready - 1
            case "evict" if revision.ready:
                revision.ready, revision.leaving = revision.ready - 1, revision.leaving + 1
                revision.reconcile()
            case "end" if revision.leaving:
                revision.leaving -= 1

    def settle(self) -> None:
        """All goes well for a while."""
        for revision in self.revisions.values():
            revision.ready, revision.starting, revision.leaving = revision.ready + revision.starting, 0, 0
