"""Who may talk to whom: serving pods answer and never call out; builder pods call out and never answer."""

from __future__ import annotations

from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.labels import builder_selector, engine_labels, serving_labels, serving_selector
from diffusion_operator.settings import OperatorSettings, S3Store


def serving_network_policy(owner: Owner, settings: OperatorSettings) -> Manifest:
    """Build the NetworkPolicy of serving pods. Only an engine store in a bucket lets them call out, to fetch the engine."""
    calls_out = isinstance(settings.engine_store, S3Store)
    spec = {
        "podSelector": {"matchLabels": serving_selector(owner.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": port} for port in ("http", "grpc", "metrics")]}],
        "egress": [{}] if calls_out else [],
    }
    return child("networking.k8s.io/v1", "NetworkPolicy", owner.name, owner, serving_labels(owner.name), spec=spec)


def builder_network_policy(owner: Owner) -> Manifest:
    """Build the NetworkPolicy of an engine's builder pods: they download from anywhere, and nobody reaches them.

    A deployment may have the engine's name, and its own policy has it too. Chart 0.1.0 named this one after the engine; an old one stays
    until its engine goes and does no harm, for it says the same of the same pods.
    """
    spec = {"podSelector": {"matchLabels": builder_selector(owner.name)}, "policyTypes": ["Ingress"], "ingress": []}
    return child("networking.k8s.io/v1", "NetworkPolicy", f"{owner.name}-builder", owner, engine_labels(owner.name), spec=spec)
