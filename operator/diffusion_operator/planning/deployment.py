"""The plan of a DiffusionDeployment: get its engine, move its pods to the revision it asks for, keep its other children, tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from diffusion_api.accelerator import Accelerator
from diffusion_api.checks import find_problems
from diffusion_api.conditions import ConditionType, Reason
from diffusion_api.deployment import DiffusionDeployment, DiffusionDeploymentStatus
from diffusion_api.problems import Problem
from diffusion_api.serving import RolloutStrategy
from diffusion_operator.manifests.accelerator import resource_claim_template
from diffusion_operator.manifests.base import Manifest, Owner, Ref
from diffusion_operator.manifests.controller_revision import RevisionRecord, controller_revision
from diffusion_operator.manifests.engine import diffusion_engine
from diffusion_operator.manifests.labels import revision_labels
from diffusion_operator.manifests.network_policy import serving_network_policy
from diffusion_operator.manifests.pod_disruption_budget import pod_disruption_budget
from diffusion_operator.manifests.pod_monitor import pod_monitor
from diffusion_operator.manifests.service import service
from diffusion_operator.manifests.serving_deployment import serving_deployment
from diffusion_operator.manifests.serving_pod import serving_pod_template
from diffusion_operator.planning.autoscaling import scaling_plan
from diffusion_operator.planning.deployment_status import Outcome, held_up_status, outcome_status
from diffusion_operator.planning.engine_identity import PROMPTS_SECONDS, EngineIdentity, engine_identity, prompts_missing
from diffusion_operator.planning.observed import EngineState, ObservedDeployment, ObservedEngine
from diffusion_operator.planning.plan import Plan, transition_events
from diffusion_operator.planning.revisions import SPEC_PARTS, activated, latest, outdated, revision_name
from diffusion_operator.planning.traffic import Traffic, steered
from diffusion_operator.planning.verdict import Verdict, fails
from diffusion_operator.settings import OperatorSettings

DeploymentPlan = Plan[DiffusionDeploymentStatus]


def plan_deployment(
    deployment: DiffusionDeployment, observed: ObservedDeployment, settings: OperatorSettings, now: datetime
) -> DeploymentPlan:
    """Decide what to do for a deployment.

    Args:
        deployment: As the cluster has it, with its status, of which only the conditions' times are read.
        observed: What is around it.
        settings: The operator's.
        now: The time, with a time zone.
    """
    scene = _Scene(deployment, observed, settings, now)
    problems = [*find_problems(deployment.spec), *_rollout_problems(deployment)]
    if problems:
        return _held_up(scene, fails(ConditionType.READY, problems[0].reason, "; ".join(map(str, problems))), "Invalid")
    named = deployment.spec.optimization.calibration.prompts_config_map
    if named is not None and not observed.prompts:
        verdict = fails(ConditionType.READY, Reason.PROMPTS_NOT_FOUND, prompts_missing(named))
        return _held_up(scene, verdict, "Waiting for prompts", PROMPTS_SECONDS)
    identity = engine_identity(deployment.spec, observed.prompts, settings)
    move = _move(scene, _asked_for(scene, identity))
    outcome = Outcome(identity, observed.engine, move.traffic, move.scaling)
    status = outcome_status(deployment, observed, settings, outcome, now)
    return _plan(scene, status, move, _engine(scene, identity))


@dataclass(frozen=True)
class _Scene:
    deployment: DiffusionDeployment
    observed: ObservedDeployment
    settings: OperatorSettings
    now: datetime

    @property
    def owner(self) -> Owner:
        return Owner.of(self.deployment)


@dataclass(frozen=True)
class _Objects:
    apply: tuple[Manifest, ...] = ()
    """What pods need to serve."""
    around: tuple[Manifest, ...] = ()
    """What guards, watches and scales them. It comes last: where the API server refuses one, pods serve all the same."""
    delete: tuple[Ref, ...] = ()


@dataclass(frozen=True)
class _Move:
    """The next step of what serves."""

    traffic: Traffic | None
    """None until the first revision exists."""
    scaling: Verdict
    objects: _Objects


def _rollout_problems(deployment: DiffusionDeployment) -> list[Problem]:
    if deployment.spec.rollout.strategy is not RolloutStrategy.CANARY:
        return []
    return [Problem("spec.rollout.strategy", "Canary is not carried out by this release; write RollingUpdate or Recreate")]


def _held_up(scene: _Scene, verdict: Verdict, phase: str, requeue_seconds: float | None = None) -> DeploymentPlan:
    """Say why the spec leads nowhere; what was asked for before goes on, and is scaled and healed meanwhile."""
    move = _move(scene, latest(scene.observed.records))
    status = held_up_status(scene.deployment, scene.observed, move.traffic, (verdict, move.scaling), phase=phase, now=scene.now)
    plan = _plan(scene, status, move)
    waits = [each for each in (requeue_seconds, plan.requeue_seconds) if each is not None]
    return replace(plan, requeue_seconds=min(waits, default=None))


def _move(scene: _Scene, record: RevisionRecord | None) -> _Move:
    """Plan the next step towards a revision; None: there is none yet."""
    observed, spec, settings = scene.observed, scene.deployment.spec, scene.settings
    scaling = scaling_plan(scene.owner, spec, observed.cluster, settings, observed.autoscaler_problems)
    unwanted = tuple(ref for ref in scaling.unwanted if ref in observed.children)
    if record is None:
        return _Move(None, scaling.verdict, _Objects(delete=unwanted))
    traffic = steered(record, observed, spec, settings, scene.now)
    records = {each.name: each for each in observed.records} | {traffic.asked.name: traffic.asked}
    serving = _serving(scene, traffic, records)
    around = (*serving.around, *scaling.apply)
    return _Move(traffic, scaling.verdict, _Objects(serving.apply, around, (*serving.delete, *unwanted)))


def _plan(scene: _Scene, status: DiffusionDeploymentStatus, move: _Move, engine: tuple[Manifest, ...] = ()) -> DeploymentPlan:
    before = scene.deployment.status
    apply = (*move.objects.apply, *engine, *move.objects.around)
    events = transition_events(before.conditions if before else (), status.conditions)
    return Plan(status, apply, tuple(sorted({*move.objects.delete})), events, move.traffic.requeue_seconds if move.traffic else None)


def _engine(scene: _Scene, identity: EngineIdentity) -> tuple[Manifest, ...]:
    if scene.observed.engine is not None:
        return ()
    return (diffusion_engine(identity.name, scene.owner, identity.spec),)


def _asked_for(scene: _Scene, identity: EngineIdentity) -> RevisionRecord | None:
    """The revision that pods shall move to: the spec's once its engine is ready; until then the one before, which serves on."""
    engine = scene.observed.engine
    if engine is None or engine.state is not EngineState.READY or engine.result is None:
        return latest(scene.observed.records)
    candidate = _candidate(scene, engine, identity.key, engine.result.artifact)
    return activated((*scene.observed.records, *_left(scene, candidate)), scene.observed.deployments, candidate)


def _left(scene: _Scene, candidate: RevisionRecord) -> list[RevisionRecord]:
    """The revision of the spec as its Deployment has it, where its record was deleted: its pods go on as they are."""
    newest = latest(scene.observed.records)
    is_next = newest is None or newest.base_name != candidate.name
    number = (newest.number if newest else 0) + 1 if is_next else 0
    return [replace(candidate, number=number, template=each.template) for each in scene.observed.orphans if each.name == candidate.name]


def _candidate(scene: _Scene, engine: ObservedEngine, engine_key: str, artifact: str) -> RevisionRecord:
    metadata, spec = scene.deployment.metadata, scene.deployment.spec
    name = revision_name(metadata.name, engine_key, spec, scene.settings)
    wire = spec.to_wire()
    return RevisionRecord(
        name=name,
        number=0,
        engine=engine.name,
        engine_key=engine_key,
        template=serving_pod_template(
            metadata.name, spec, scene.settings, namespace=scene.owner.namespace, revision=name, engine=engine.name, artifact=artifact
        ),
        spec={part: wire[part] for part in SPEC_PARTS if part in wire},
        activated_at=scene.now.replace(microsecond=0),
    )


def _serving(scene: _Scene, traffic: Traffic, records: Mapping[str, RevisionRecord]) -> _Objects:
    """Every object around the pods. What is drained goes; its record stays for the history."""
    owner, settings, spec = scene.owner, scene.settings, scene.deployment.spec
    drained = {name for name, pods in scene.observed.deployments.items() if name != traffic.target.name and not pods.held}
    known = {each.name: each for each in scene.observed.orphans} | dict(records)
    running = {name: count for name, count in traffic.replicas.items() if name in known and name not in drained}
    needed = {traffic.asked.name, traffic.target.name, *running, *([traffic.last_good] if traffic.last_good else [])}
    old = outdated(tuple(records.values()), needed, spec.rollout.revision_history_limit)
    apply: list[Manifest] = [controller_revision(owner, record) for record in _changed(scene, traffic)]
    apply.append(service(owner))
    if settings.network_policies:
        apply.append(serving_network_policy(owner, settings))
    apply += [_claim_template(scene, records[name]) for name in sorted({*running} & {*records}) if _lacks_claims(scene, records[name])]
    # Those that shrink go first, so that their GPUs are given back before others are asked for.
    shrinking_first = sorted(running, key=lambda name: (name == traffic.target.name, name))
    apply += [serving_deployment(owner, known[name], running[name]) for name in shrinking_first]
    around = [pod_disruption_budget(owner, spec.rollout.max_unavailable)]
    if scene.observed.cluster.pod_monitors:
        around.append(pod_monitor(owner, settings))
    gone = [Ref("apps/v1", "Deployment", owner.namespace, name) for name in drained]
    templates = [_claim_template_ref(scene, name) for name in drained]
    gone += [ref for ref in templates if ref in scene.observed.children]
    gone += [Ref("apps/v1", "ControllerRevision", owner.namespace, record.name) for record in old]
    return _Objects(tuple(apply), tuple(around), tuple(gone))


def _changed(scene: _Scene, traffic: Traffic) -> list[RevisionRecord]:
    return [traffic.asked] if traffic.asked not in scene.observed.records else []


def _lacks_claims(scene: _Scene, record: RevisionRecord) -> bool:
    """Whether the revision's pods are made with claims, whatever spec and settings say today, and their template is not there.

    The API server refuses changes of one that is: it stays as it was made, whatever the settings say of devices since.
    """
    return bool(record.template["spec"].get("resourceClaims")) and _claim_template_ref(scene, record.name) not in scene.observed.children


def _claim_template_ref(scene: _Scene, revision: str) -> Ref:
    return Ref("resource.k8s.io/v1", "ResourceClaimTemplate", scene.owner.namespace, revision)


def _claim_template(scene: _Scene, record: RevisionRecord) -> Manifest:
    labels = revision_labels(scene.owner.name, record.name, record.engine)
    accelerator = Accelerator.model_validate(record.spec["accelerator"])
    return resource_claim_template(record.name, scene.owner, labels, accelerator, scene.settings.dynamic_resources)
