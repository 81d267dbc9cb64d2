"""What the operator asks of a cluster. Tests put a cluster in memory, or one that fails on purpose, in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.manifests.base import Manifest, Ref

FIELD_MANAGER = "diffusion-operator"
"""Owns every field that the operator applies."""


@dataclass(frozen=True)
class Listing:
    """Objects of one kind at one moment."""

    items: Sequence[Manifest]
    resource_version: str


@dataclass(frozen=True)
class Served:
    """Which of the optional APIs the cluster has."""

    kinds: frozenset[Kind]
    custom_metrics: bool = False
    """Whether custom.metrics.k8s.io is served."""


class ClusterClient(Protocol):
    """Requests to the API server. Every one of them raises `ClusterError`, and nothing else, where it fails."""

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> Listing:
        """List the objects of a kind; None: of all namespaces. `selector` replaces the kind's own."""
        ...

    async def get(self, ref: Ref) -> Manifest | None:
        """Return an object, or None where it does not exist."""
        ...

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        """Apply on the server's side, and return the object as it is then.

        Args:
            manifest: Every field that shall be the operator's.
            force: Take fields from other managers; else the request is outdated where they differ.
        """
        ...

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Apply `status` alone; `metadata.uid` says of which object, so that another one of the same name does not get it."""
        ...

    async def delete(self, ref: Ref, uid: str) -> Manifest | None:
        """Delete an object and, later, its children. One that is gone, or is another by now, is no error.

        Returns:
            The object where it stays for now, for somebody's finalizers hold it; None where it is gone.
        """
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; it is outdated where there is one."""
        ...

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object; outdated where `metadata.resourceVersion` is."""
        ...

    async def merge(self, ref: Ref, patch: Mapping[str, object]) -> Manifest:
        """Patch an object by JSON merge."""
        ...

    async def log_tail(self, pod: Ref, container: str, lines: int, limit_bytes: int) -> str:
        """Return the last lines of a container's log, of which the first `limit_bytes`; empty where there is none."""
        ...

    async def events_about(self, ref: Ref, uid: str) -> Sequence[Manifest]:
        """List the events (core/v1) about an object, in any order; empty where the operator may not list events."""
        ...

    async def node_labels(self) -> tuple[Mapping[str, str], ...] | None:
        """Return the labels of every node; None where the operator may not list nodes."""
        ...

    async def served(self) -> Served:
        """Ask which of the optional APIs the cluster has."""
        ...
