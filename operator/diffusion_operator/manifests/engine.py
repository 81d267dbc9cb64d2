"""The DiffusionEngine that a deployment needs."""

from __future__ import annotations

from diffusion_api.base import API_VERSION
from diffusion_api.engine import DiffusionEngineSpec
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.labels import managed_labels


def diffusion_engine(name: str, namespace: str, spec: DiffusionEngineSpec) -> Manifest:
    """Build the engine. It has no owner, for deployments share it: retention deletes it when none is left."""
    metadata = {"name": name, "namespace": namespace, "labels": managed_labels()}
    return {"apiVersion": API_VERSION, "kind": "DiffusionEngine", "metadata": metadata, "spec": spec.to_wire()}
