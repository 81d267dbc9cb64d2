"""From what Kubernetes says of a pod to a reason and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusion_api.conditions import Reason
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.accelerator import node_selector
from diffusion_operator.planning.observed import EngineState, ObservedDeployment, Trouble, TroubleKind
from diffusion_operator.settings import OperatorSettings

LISTED = 5
"""Values of other nodes that a message names."""


def explained(
    trouble: Trouble, selector: Mapping[str, str], nodes: Sequence[Mapping[str, str]] | None, *, pending: Reason, failing: Reason
) -> tuple[Reason, str]:
    """Return a reason and a sentence.

    Args:
        trouble: What was seen.
        selector: The pod's node selector.
        nodes: Labels of the cluster's nodes; None where they are not known.
        pending: Reason of a pod that waits for room.
        failing: Reason of a pod that runs and fails.
    """
    said = trouble.message
    lack = unmatched(selector, nodes)
    match trouble.kind:
        case TroubleKind.UNSCHEDULABLE if lack:
            return Reason.NO_MATCHING_NODE, f"{lack}; add such a node, or change spec.accelerator"
        case TroubleKind.UNSCHEDULABLE:
            return pending, f"no node has room: {said}; free a GPU, or wait"
        case TroubleKind.VOLUME:
            return Reason.VOLUME_UNAVAILABLE, f"a volume is missing: {said}; check that claim and its storage class, Secret or ConfigMap"
        case TroubleKind.IMAGE:
            return Reason.IMAGE_UNAVAILABLE, f"an image cannot be pulled: {said}; check images in the operator's settings"
        case TroubleKind.OUT_OF_MEMORY:
            return Reason.OUT_OF_MEMORY, f"out of memory: {said}; raise resources.memory in the operator's settings"
        case TroubleKind.FILES_MISSING:
            return Reason.ENGINE_FILES_MISSING, f"the engine's files are gone or damaged: {said}; the engine is built again"
        case TroubleKind.MISMATCH:
            return Reason.ENGINE_MISMATCH, f"the engine does not fit this image or GPU: {said}; builder and Triton need one TensorRT"
        case TroubleKind.CRASHED:
            return failing, f"a pod fails: {said}; see `kubectl logs`"


def pods_trouble(
    trouble: Trouble, spec: DiffusionDeploymentSpec, observed: ObservedDeployment, settings: OperatorSettings
) -> tuple[Reason, str]:
    """`explained`, for a deployment's Triton pods."""
    engine = observed.engine
    if trouble.kind is TroubleKind.FILES_MISSING and engine is not None and engine.state is EngineState.FAILED:
        lack = f"the engine's files are gone or damaged: {trouble.message}"
        return Reason.ENGINE_FILES_MISSING, f"{lack}; engine {engine.name}: {engine.message}"
    selector = node_selector(spec.accelerator, settings)
    return explained(trouble, selector, observed.cluster.node_labels, pending=Reason.PODS_NOT_READY, failing=Reason.PODS_NOT_READY)


def unmatched(selector: Mapping[str, str], nodes: Sequence[Mapping[str, str]] | None) -> str:
    """Say which label of a node selector no node has; empty where one has all, or nothing is selected, or nodes are unknown."""
    if not selector or nodes is None or any(all(labels.get(key) == value for key, value in selector.items()) for labels in nodes):
        return ""
    for key, value in selector.items():
        found = sorted({labels[key] for labels in nodes if key in labels})
        if value not in found:
            have = f"nodes have {', '.join(found[:LISTED])}" if found else "no node has that label at all"
            return f"no node is labelled {key}={value} ({have})"
    wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
    return f"no node has all of {wanted} at once"
