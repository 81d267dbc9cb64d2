"""How many serving pods are wanted, and who changes that number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.autoscalers import HPA, SCALED_OBJECT, horizontal_pod_autoscaler, scaled_object
from diffusion_operator.manifests.base import Manifest, Owner, Ref
from diffusion_operator.planning.observed import Cluster
from diffusion_operator.planning.verdict import Verdict
from diffusion_operator.settings import OperatorSettings


class Autoscaler(StrEnum):
    """Who scales."""

    FIXED = "Fixed"  # Nobody: the bounds leave no choice.
    KEDA = "KEDA"
    HPA = "HorizontalPodAutoscaler"
    NONE = "None"  # Nobody: the cluster has neither.


@dataclass(frozen=True)
class ScalingPlan:
    """The autoscaler of a deployment."""

    verdict: Verdict
    apply: tuple[Manifest, ...] = ()
    unwanted: tuple[Ref, ...] = ()
    """Autoscalers that must not be there; two would fight."""


def wanted_replicas(spec: DiffusionDeploymentSpec, cluster: Cluster, settings: OperatorSettings) -> int:
    """Serving pods wanted now: what was asked through the scale subresource, held between the bounds.

    A HorizontalPodAutoscaler leaves a target that is at 0 alone, for ever, so that it never is. Source: Kubernetes
    pkg/controller/podautoscaler, `ScalingDisabled`.
    """
    least = spec.autoscaling.min_replicas
    if choose_autoscaler(spec, cluster, settings) is Autoscaler.HPA:
        least = max(1, least)
    return max(least, min(spec.replicas, spec.autoscaling.max_replicas))


def scaled_to_zero(owner: Owner, spec: DiffusionDeploymentSpec, cluster: Cluster, settings: OperatorSettings) -> str:
    """Say what becomes of requests while no pod is wanted, and how to serve again.

    Pods alone report how many requests wait: with none of them nothing does, and KEDA takes back what is scaled up by hand. Source:
    KEDA pkg/scaling/executor, `scaleToZero`.
    """
    refused = "no pod is wanted, and requests are refused"
    if choose_autoscaler(spec, cluster, settings) is Autoscaler.KEDA:
        unseen = f"until {settings.scaling.metric} of this deployment rises, which no pod reports now"
        return f"{refused} {unseen}; set spec.autoscaling.minReplicas to 1 to serve"
    return f"{refused}; run `kubectl scale dd {owner.name} --namespace {owner.namespace} --replicas 1` to serve"


def choose_autoscaler(spec: DiffusionDeploymentSpec, cluster: Cluster, settings: OperatorSettings) -> Autoscaler:
    """Choose KEDA where it can work, for it alone can scale to zero; else the HorizontalPodAutoscaler where it has a metric."""
    bounds = spec.autoscaling
    if bounds.min_replicas == bounds.max_replicas:
        return Autoscaler.FIXED
    if cluster.keda and settings.scaling.prometheus_url:
        return Autoscaler.KEDA
    return Autoscaler.HPA if cluster.custom_metrics else Autoscaler.NONE


def scaling_plan(
    owner: Owner,
    spec: DiffusionDeploymentSpec,
    cluster: Cluster,
    settings: OperatorSettings,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> ScalingPlan:
    """Plan the autoscaler of a deployment; `problems` are what those that are there say of why they cannot scale, by kind."""
    bounds = spec.autoscaling
    hpa, keda = (Ref(*kind, owner.namespace, owner.name) for kind in (HPA, SCALED_OBJECT))
    match choose_autoscaler(spec, cluster, settings):
        case Autoscaler.FIXED:
            message = f"minReplicas and maxReplicas are both {bounds.min_replicas}; raise maxReplicas to let load decide"
            return ScalingPlan(_verdict(Reason.FIXED_REPLICAS, message, active=False), (), (hpa, keda))
        case Autoscaler.KEDA:
            message = f"KEDA scales between {bounds.min_replicas} and {bounds.max_replicas} on pending requests"
            manifest = scaled_object(owner, bounds, settings.scaling)
            return ScalingPlan(_found(message, problems.get(keda.kind, "")), (manifest,), (hpa,))
        case Autoscaler.HPA:
            least = max(1, bounds.min_replicas)
            message = f"a HorizontalPodAutoscaler scales between {least} and {bounds.max_replicas} on pending requests"
            if bounds.min_replicas == 0:
                message += "; minReplicas 0 needs KEDA and scaling.prometheusUrl in the operator's settings"
            manifest = horizontal_pod_autoscaler(owner, bounds, settings.scaling)
            return ScalingPlan(_found(message, problems.get(hpa.kind, "")), (manifest,), (keda,))
        case Autoscaler.NONE:
            message = (
                f"nothing here can scale between {bounds.min_replicas} and {bounds.max_replicas}: install KEDA and set "
                "scaling.prometheusUrl in the operator's settings, or install a metrics adapter; until then spec.replicas holds"
            )
            return ScalingPlan(_verdict(Reason.AUTOSCALER_MISSING, message, active=False), (), (hpa, keda))


def _found(message: str, problem: str) -> Verdict:
    if problem:
        return _verdict(Reason.AUTOSCALER_FAILING, f"{message}, but cannot: {problem}", active=False)
    return _verdict(Reason.AUTOSCALER_FOUND, message)


def _verdict(reason: Reason, message: str, *, active: bool = True) -> Verdict:
    return Verdict(ConditionType.SCALING_ACTIVE, ConditionStatus.TRUE if active else ConditionStatus.FALSE, reason, message)
