"""What every child object has: a type, a name, labels, an owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from diffusion_api.base import API_VERSION
from diffusion_api.deployment import DiffusionDeployment
from diffusion_api.engine import DiffusionEngine

Manifest = dict[str, Any]
"""A Kubernetes object as JSON; belongs to the caller."""


@dataclass(frozen=True, order=True)
class Ref:
    """Names one object of the cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Owner:
    """The object that children belong to: they go when it goes."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, resource: DiffusionDeployment | DiffusionEngine) -> Self:
        """Take from a resource that was read from a cluster what its children need."""
        metadata = resource.metadata
        return cls(kind=resource.kind, namespace=metadata.namespace or "default", name=metadata.name, uid=metadata.uid or "")

    def reference(self) -> Manifest:
        """Entry of `ownerReferences`. Leaves `blockOwnerDeletion` out, which would need rights on the owner's finalizers."""
        return {"apiVersion": API_VERSION, "kind": self.kind, "name": self.name, "uid": self.uid, "controller": True}


def ref_of(manifest: Mapping[str, Any]) -> Ref:
    """Name an object by its manifest."""
    metadata = manifest["metadata"]
    return Ref(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def child(api_version: str, kind: str, name: str, owner: Owner, labels: Mapping[str, str], **fields: object) -> Manifest:
    """Begin a child object: type, metadata and owner, then its own fields; those that are None are left out."""
    metadata: Manifest = {
        "name": name,
        "namespace": owner.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner.reference()],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **without_none(fields)}


def without_none(fields: Mapping[str, object]) -> Manifest:
    """Leave out fields that are None."""
    return {name: value for name, value in fields.items() if value is not None}
