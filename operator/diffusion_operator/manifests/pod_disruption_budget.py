"""How many serving pods a node drain may take at once."""

from __future__ import annotations

from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.labels import serving_labels, serving_selector


def pod_disruption_budget(owner: Owner, max_unavailable: int) -> Manifest:
    """Build the PodDisruptionBudget; at least 1, for 0 would keep a node from ever being drained."""
    spec = {
        "maxUnavailable": max(1, max_unavailable),
        "selector": {"matchLabels": serving_selector(owner.name)},
        # A pod that is not ready serves nobody and may always go.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child("policy/v1", "PodDisruptionBudget", owner.name, owner, serving_labels(owner.name), spec=spec)
