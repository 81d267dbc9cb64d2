"""The two autoscalers; both scale the DiffusionDeployment itself, through its scale subresource."""

from __future__ import annotations

from diffusion_api.base import API_VERSION
from diffusion_api.serving import Autoscaling
from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.labels import DEPLOYMENT, serving_labels
from diffusion_operator.settings import Scaling

HPA = ("autoscaling/v2", "HorizontalPodAutoscaler")
SCALED_OBJECT = ("keda.sh/v1alpha1", "ScaledObject")


def horizontal_pod_autoscaler(owner: Owner, autoscaling: Autoscaling, scaling: Scaling) -> Manifest:
    """Build the HorizontalPodAutoscaler on pending requests per pod; it keeps at least one pod, for Kubernetes knows no fewer."""
    metric = {
        "metric": {"name": scaling.metric},
        "target": {"type": "AverageValue", "averageValue": str(autoscaling.target_pending_requests)},
    }
    spec = {
        "scaleTargetRef": _target(owner),
        "minReplicas": max(1, autoscaling.min_replicas),
        "maxReplicas": autoscaling.max_replicas,
        "metrics": [{"type": "Pods", "pods": metric}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": scaling.scale_down_seconds}},
    }
    return child(*HPA, owner.name, owner, serving_labels(owner.name), spec=spec)


def scaled_object(owner: Owner, autoscaling: Autoscaling, scaling: Scaling) -> Manifest:
    """Build KEDA's ScaledObject on pending requests, summed over the pods; it may go to zero.

    Raises:
        ValueError: `scaling.prometheus_url` is unset; ask `planning.autoscaling` first.
    """
    if scaling.prometheus_url is None:
        raise ValueError("scaling.prometheus_url is unset, and KEDA asks Prometheus for the load")
    query = f'sum({scaling.metric}{{namespace="{owner.namespace}",{_prometheus_label(DEPLOYMENT)}="{owner.name}"}})'
    metadata = {
        "serverAddress": scaling.prometheus_url,
        "query": query,
        "threshold": str(autoscaling.target_pending_requests),
        "activationThreshold": "0",
    }
    spec = {
        "scaleTargetRef": _target(owner),
        "minReplicaCount": autoscaling.min_replicas,
        "maxReplicaCount": autoscaling.max_replicas,
        "cooldownPeriod": scaling.scale_down_seconds,
        "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": metadata}],
    }
    return child(*SCALED_OBJECT, owner.name, owner, serving_labels(owner.name), spec=spec)


def _target(owner: Owner) -> Manifest:
    return {"apiVersion": API_VERSION, "kind": owner.kind, "name": owner.name}


def _prometheus_label(label: str) -> str:
    """Source: Prometheus operator, `podTargetLabels`: every character that a label name cannot hold becomes `_`."""
    return "".join(character if character.isalnum() else "_" for character in label)
