"""The stable address of a deployment."""

from __future__ import annotations

from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.labels import serving_labels, serving_selector


def service(owner: Owner) -> Manifest:
    """Build the Service. It selects the pods of every revision: while a rollout moves them, those that are ready share the load."""
    ports = [{"name": "http", "port": 8000, "targetPort": "http"}, {"name": "grpc", "port": 8001, "targetPort": "grpc"}]
    spec = {"selector": serving_selector(owner.name), "ports": ports}
    return child("v1", "Service", owner.name, owner, serving_labels(owner.name), spec=spec)
