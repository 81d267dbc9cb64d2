"""Where Prometheus finds the metrics of each pod."""

from __future__ import annotations

from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.labels import DEPLOYMENT, REVISION, serving_labels, serving_selector
from diffusion_operator.settings import OperatorSettings


def pod_monitor(owner: Owner, settings: OperatorSettings) -> Manifest:
    """Build the PodMonitor: pods and not the Service, so that the load of each is told apart. Needs the Prometheus operator's CRD."""
    spec = {
        "selector": {"matchLabels": serving_selector(owner.name)},
        "podTargetLabels": [DEPLOYMENT, REVISION],
        "podMetricsEndpoints": [{"port": "metrics"}],
    }
    labels = {**settings.pod_monitor_labels, **serving_labels(owner.name)}
    return child("monitoring.coreos.com/v1", "PodMonitor", owner.name, owner, labels, spec=spec)
