"""A deployment, its cluster and its operator, stepped by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_api.deployment import DiffusionDeploymentStatus
from diffusion_api.engine import EngineResult
from diffusion_operator.manifests.base import Manifest, Ref, ref_of
from diffusion_operator.manifests.controller_revision import revision_record
from diffusion_operator.observing.deployments import orphaned_records
from diffusion_operator.planning.deployment import DeploymentPlan, plan_deployment
from diffusion_operator.planning.engine_identity import engine_identity
from diffusion_operator.planning.observed import Cluster, EngineState, ObservedDeployment, ObservedEngine, Trouble, TroubleKind
from diffusion_operator.settings import OperatorSettings
from tests.unit.diffusion_operator.scenes import B200_LABELS, NOW, RESULT, SETTINGS, deployment
from tests.unit.diffusion_operator.simulation import SimulatedCluster

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
CRASHED = Trouble(TroubleKind.CRASHED, "exit code 1")
NODES = Cluster(node_labels=(B200_LABELS,))


@dataclass
class World:
    """What an executor and Kubernetes make of plans."""

    spec: dict[str, Any] = field(default_factory=dict)
    options: OperatorSettings = SETTINGS
    cluster: Cluster = NODES
    now: datetime = NOW
    generation: int = 1
    objects: dict[Ref, Manifest] = field(default_factory=dict)
    engines: dict[str, ObservedEngine] = field(default_factory=dict)
    pods: SimulatedCluster = field(default_factory=SimulatedCluster)
    broken: set[str] = field(default_factory=set)
    """Revisions whose pods never become ready."""
    trouble: Trouble = CRASHED
    """What their pods have."""
    ready_at: dict[str, datetime] = field(default_factory=dict)
    status: DiffusionDeploymentStatus | None = None
    prompts: tuple[str, ...] | None = None
    restarts: list[str] = field(default_factory=list)
    """Deployments whose pod template was changed."""

    def resource(self):
        status = self.status.to_wire() if self.status else None
        return deployment(status, self.generation, **self.spec)

    def change(self, **spec: Any) -> None:
        self.spec |= spec
        self.generation += 1

    def observed(self) -> ObservedDeployment:
        spec = self.resource().spec
        identity = engine_identity(spec, self.prompts, self.options)
        states = {
            name: replace(
                state,
                last_ready_at=self.ready_at.get(name),
                trouble=self.trouble if name in self.broken and state.ready < state.desired else None,
            )
            for name, state in self.pods.observed().items()
        }
        records = tuple(revision_record(each) for ref, each in self.objects.items() if ref.kind == "ControllerRevision")
        return ObservedDeployment(
            engine=self.engines.get(identity.name),
            prompts=self.prompts,
            results={name: each.result for name, each in self.engines.items() if each.result},
            records=records,
            orphans=orphaned_records([each for ref, each in self.objects.items() if ref.kind == "Deployment"], records),
            deployments=states,
            children=frozenset(self.objects),
            cluster=self.cluster,
        )

    def plan(self) -> DeploymentPlan:
        return plan_deployment(self.resource(), self.observed(), self.options, self.now)

    def reconcile(self) -> DeploymentPlan:
        plan = self.plan()
        for manifest in plan.apply:
            self._apply(manifest)
        for ref in plan.delete:
            self.objects.pop(ref, None)
            if ref.kind == "Deployment":
                assert not self.pods.revisions[ref.name].existing
                del self.pods.revisions[ref.name]
        self.status = plan.status
        return plan

    def _apply(self, manifest: Manifest) -> None:
        ref = ref_of(manifest)
        before = self.objects.get(ref)
        self.objects[ref] = manifest
        if ref.kind == "DiffusionEngine":
            self.engines[ref.name] = ObservedEngine(ref.name, EngineState.PENDING)
        if ref.kind == "Deployment":
            if before is not None and before["spec"]["template"] != manifest["spec"]["template"]:
                self.restarts.append(ref.name)
            self.pods.apply({ref.name: manifest["spec"]["replicas"]})

    def move_files(self, artifact: str) -> None:
        """Every engine was built again, to another place."""
        result = RESULT.model_copy(update={"artifact": artifact})
        self.engines = {name: replace(each, result=result) for name, each in self.engines.items()}

    def build(self, state: EngineState = EngineState.READY, message: str = "", result: EngineResult = RESULT) -> None:
        for name, engine in self.engines.items():
            if engine.state is not EngineState.READY:
                self.engines[name] = replace(engine, state=state, message=message, result=result if state is EngineState.READY else None)

    def settle(self, seconds: float = 1.0) -> None:
        """Pods that can become ready do; those that end have ended."""
        self.now += timedelta(seconds=seconds)
        for name, revision in self.pods.revisions.items():
            revision.leaving = 0
            if name not in self.broken and revision.starting:
                revision.ready, revision.starting = revision.ready + revision.starting, 0
                self.ready_at[name] = self.now

    def run(self, rounds: int = 60) -> DeploymentPlan:
        """Reconcile until nothing changes, or for so many rounds."""
        for _ in range(rounds):
            before = self.status, dict(self.objects), self.pods.observed()
            plan = self.reconcile()
            self.settle()
            if before == (self.status, self.objects, self.pods.observed()):
                break
        return plan

    def condition(self, type: ConditionType) -> tuple[ConditionStatus, Reason]:
        assert self.status is not None
        (found,) = [each for each in self.status.conditions if each.type is type]
        return found.status, found.reason

    def message(self, type: ConditionType) -> str:
        assert self.status is not None
        return next(each.message for each in self.status.conditions if each.type is type)

    def kinds(self) -> set[str]:
        return {ref.kind for ref in self.objects}


def serving_world(**spec: Any) -> World:
    world = World({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}, **spec})
    world.run(1)
    world.build()
    world.run()
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SERVING)
    return world
