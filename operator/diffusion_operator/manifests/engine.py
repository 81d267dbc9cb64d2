"""The DiffusionEngine that a deployment needs."""

from __future__ import annotations

from diffusion_api.base import API_VERSION
from diffusion_api.engine import DiffusionEngineSpec
from diffusion_operator.manifests.base import Manifest, Owner
from diffusion_operator.manifests.labels import PREFIX, managed_labels

MADE_FOR = f"{PREFIX}/made-for"
"""Annotation with the name of the deployment that was the first to need the engine."""


def diffusion_engine(name: str, owner: Owner, spec: DiffusionEngineSpec) -> Manifest:
    """Build the engine that `owner` needs. It does not own it, for deployments share it: retention deletes it when none is left."""
    metadata = {"name": name, "namespace": owner.namespace, "labels": managed_labels(), "annotations": {MADE_FOR: owner.name}}
    return {"apiVersion": API_VERSION, "kind": "DiffusionEngine", "metadata": metadata, "spec": spec.to_wire()}
