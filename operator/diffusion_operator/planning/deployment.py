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
from diffusion_operator.manifests.accelerator import resource_claim_template, uses_claims
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
from diffusion_operator.planning.deployment_status import Outcome, outcome_status
from diffusion_operator.planning.engine_identity import PROMPTS_SECONDS, EngineIdentity, engine_identity, prompts_missing
from diffusion_operator.planning.observed import EngineState, ObservedDeployment, ObservedEngine
from diffusion_operator.planning.plan import Plan, transition_events
from diffusion_operator.planning.revisions import SPEC_PARTS, activated, latest, outdated, revision_name
from diffusion_operator.planning.traffic import Traffic, steered
from diffusion_operator.planning.verdict import Verdict, fails, merged
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
    problems = [*find_problems(deployment.spec), *_rollout_problems(deployment)]
    if problems:
        return plan_invalid(deployment, problems, now)
    if deployment.spec.optimization.calibration.prompts_config_map is not None and not observed.prompts:
        return _without_prompts(deployment, now)
    scene = _Scene(deployment, observed, settings, now, engine_identity(deployment.spec, observed.prompts, settings))
    record = _asked_for(scene)
    traffic = steered(record, observed, deployment.spec, settings, now) if record else None
    records = {each.name: each for each in observed.records}
    if traffic is not None:
        records[traffic.asked.name] = traffic.asked
    serving = _serving(scene, traffic, records) if traffic else _Objects()
    scaling = scaling_plan(scene.owner, deployment.spec, observed.cluster, settings, observed.autoscaler_problems)
    outcome = Outcome(scene.identity, observed.engine, traffic, scaling.verdict)
    status = outcome_status(deployment, observed, settings, outcome, now)
    apply = (*_engine(scene), *serving.apply, *(scaling.apply if traffic else ()))
    unwanted = {*serving.delete, *(ref for ref in scaling.unwanted if ref in observed.children)}
    events = transition_events(deployment.status.conditions if deployment.status else (), status.conditions)
    return Plan(status, apply, tuple(sorted(unwanted)), events, traffic.requeue_seconds if traffic else None)


def plan_invalid(deployment: DiffusionDeployment, problems: list[Problem], now: datetime) -> DeploymentPlan:
    """Say what is wrong and leave everything else as it is: what serves goes on serving."""
    message = "; ".join(map(str, problems))
    return _unchanged(deployment, fails(ConditionType.READY, problems[0].reason, message), "Invalid", now)


@dataclass(frozen=True)
class _Scene:
    deployment: DiffusionDeployment
    observed: ObservedDeployment
    settings: OperatorSettings
    now: datetime
    identity: EngineIdentity

    @property
    def owner(self) -> Owner:
        return Owner.of(self.deployment)


@dataclass(frozen=True)
class _Objects:
    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()


def _rollout_problems(deployment: DiffusionDeployment) -> list[Problem]:
    if deployment.spec.rollout.strategy is not RolloutStrategy.CANARY:
        return []
    return [Problem("spec.rollout.strategy", "Canary is not carried out by this release; write RollingUpdate or Recreate")]


def _without_prompts(deployment: DiffusionDeployment, now: datetime) -> DeploymentPlan:
    named = deployment.spec.optimization.calibration.prompts_config_map
    assert named is not None
    verdict = fails(ConditionType.READY, Reason.PROMPTS_NOT_FOUND, prompts_missing(named))
    return replace(_unchanged(deployment, verdict, "Waiting for prompts", now), requeue_seconds=PROMPTS_SECONDS)


def _unchanged(deployment: DiffusionDeployment, verdict: Verdict, phase: str, now: datetime) -> DeploymentPlan:
    status = deployment.status or DiffusionDeploymentStatus()
    generation = deployment.metadata.generation
    conditions = merged(status.conditions, (verdict,), generation, now)
    new = status.model_copy(update={"conditions": conditions, "observed_generation": generation, "phase": phase})
    return Plan(new, events=transition_events(status.conditions, conditions))


def _engine(scene: _Scene) -> tuple[Manifest, ...]:
    if scene.observed.engine is not None:
        return ()
    return (diffusion_engine(scene.identity.name, scene.owner, scene.identity.spec),)


def _asked_for(scene: _Scene) -> RevisionRecord | None:
    """The revision that pods shall move to: the spec's once its engine is ready; until then the one before, which serves on."""
    engine = scene.observed.engine
    if engine is None or engine.state is not EngineState.READY or engine.result is None:
        return latest(scene.observed.records)
    return activated(scene.observed.records, scene.observed.deployments, _candidate(scene, engine, engine.result.artifact))


def _candidate(scene: _Scene, engine: ObservedEngine, artifact: str) -> RevisionRecord:
    metadata, spec = scene.deployment.metadata, scene.deployment.spec
    name = revision_name(metadata.name, scene.identity.key, spec, scene.settings)
    wire = spec.to_wire()
    return RevisionRecord(
        name=name,
        number=0,
        engine=engine.name,
        engine_key=scene.identity.key,
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
    running = {name: count for name, count in traffic.replicas.items() if name in records and name not in drained}
    needed = {traffic.asked.name, traffic.target.name, *running, *([traffic.last_good] if traffic.last_good else [])}
    old = outdated(tuple(records.values()), needed, spec.rollout.revision_history_limit)
    apply: list[Manifest] = [controller_revision(owner, record) for record in _changed(scene, traffic)]
    apply += [service(owner), pod_disruption_budget(owner, spec.rollout.max_unavailable)]
    if settings.network_policies:
        apply.append(serving_network_policy(owner, settings))
    if scene.observed.cluster.pod_monitors:
        apply.append(pod_monitor(owner, settings))
    if uses_claims(spec.accelerator, settings):
        apply += [_claim_template(scene, records[name]) for name in sorted(running)]
    # Those that shrink go first, so that their GPUs are given back before others are asked for.
    shrinking_first = sorted(running, key=lambda name: (name == traffic.target.name, name))
    apply += [serving_deployment(owner, records[name], running[name]) for name in shrinking_first]
    gone = [Ref("apps/v1", "Deployment", owner.namespace, name) for name in drained]
    templates = [Ref("resource.k8s.io/v1", "ResourceClaimTemplate", owner.namespace, name) for name in drained]
    gone += [ref for ref in templates if ref in scene.observed.children]
    gone += [Ref("apps/v1", "ControllerRevision", owner.namespace, record.name) for record in old]
    return _Objects(tuple(apply), tuple(gone))


def _changed(scene: _Scene, traffic: Traffic) -> list[RevisionRecord]:
    return [traffic.asked] if traffic.asked not in scene.observed.records else []


def _claim_template(scene: _Scene, record: RevisionRecord) -> Manifest:
    labels = revision_labels(scene.owner.name, record.name, record.engine)
    accelerator = Accelerator.model_validate(record.spec["accelerator"])
    return resource_claim_template(record.name, scene.owner, labels, accelerator, scene.settings.dynamic_resources)
