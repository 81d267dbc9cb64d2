"""How a pod gets exactly the accelerator that its engine was compiled for.

Product and compute capability are both selected: older GPU feature discovery names no family for Blackwell, and the product's suffix
(`-SHARED`, `-MIG-…`) matters to an engine.
"""

from __future__ import annotations

from diffusion_api.accelerator import Accelerator
from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.settings import DynamicResources, OperatorSettings

PRODUCT_LABEL = "nvidia.com/gpu.product"
MAJOR_LABEL = "nvidia.com/gpu.compute.major"
MINOR_LABEL = "nvidia.com/gpu.compute.minor"
CLAIM = "gpu"
"""Name of the claim inside a pod."""


def gpu_resource(accelerator: Accelerator) -> str:
    """Extended resource of one GPU or MIG slice.

    Under MIG's single strategy the product names the slice and the resource is a plain GPU; under the mixed one it is the reverse.

    Source: NVIDIA k8s-device-plugin, "MIG strategies".
    """
    profile = accelerator.mig_profile
    is_mixed = profile is not None and "-MIG-" not in accelerator.product
    return f"nvidia.com/mig-{profile}" if is_mixed else "nvidia.com/gpu"


def node_selector(accelerator: Accelerator, settings: OperatorSettings) -> dict[str, str]:
    """Labels that a node must carry; under DRA the claim chooses the device instead."""
    selector = dict(settings.node_selector)
    capability = accelerator.resolved_compute_capability
    if capability is None or settings.dynamic_resources.enabled:
        return selector
    major, minor = capability.split(".")
    return {**selector, PRODUCT_LABEL: accelerator.product, MAJOR_LABEL: major, MINOR_LABEL: minor}


def container_resources(accelerator: Accelerator, settings: OperatorSettings, requests: Manifest, limits: Manifest) -> Manifest:
    """Resources of the container that uses the accelerator; `requests` and `limits` hold the rest."""
    if accelerator.is_cpu:
        return {"requests": requests, "limits": limits}
    if settings.dynamic_resources.enabled:
        return {"requests": requests, "limits": limits, "claims": [{"name": CLAIM}]}
    # Kubernetes fills in the request of an extended resource from its limit.
    return {"requests": requests, "limits": {**limits, gpu_resource(accelerator): str(accelerator.count)}}


def uses_claims(accelerator: Accelerator, settings: OperatorSettings) -> bool:
    """Tell whether pods get the accelerator by ResourceClaim."""
    return settings.dynamic_resources.enabled and not accelerator.is_cpu


def pod_claims(template_name: str) -> list[Manifest]:
    """The pod's `resourceClaims`: one claim, made for each pod from a template."""
    return [{"name": CLAIM, "resourceClaimTemplateName": template_name}]


def resource_claim_template(name: str, owner: Owner, labels: dict[str, str], accelerator: Accelerator, dra: DynamicResources) -> Manifest:
    """Build the ResourceClaimTemplate of pods that need this accelerator.

    Source: attributes that NVIDIA's k8s-dra-driver-gpu publishes (`productName`, `cudaComputeCapability`, `profile`).
    """
    is_slice = accelerator.mig_profile is not None
    request = {
        "name": CLAIM,
        "exactly": {
            "deviceClassName": dra.mig_device_class if is_slice else dra.device_class,
            "count": accelerator.count,
            "selectors": [{"cel": {"expression": device_expression(accelerator, dra)}}],
        },
    }
    spec = {"metadata": {"labels": dict(labels)}, "spec": {"devices": {"requests": [request]}}}
    return child("resource.k8s.io/v1", "ResourceClaimTemplate", name, owner, labels, spec=spec)


def device_expression(accelerator: Accelerator, dra: DynamicResources) -> str:
    """CEL that holds for the device alone. The node label is the product's name with dashes for spaces, so it is compared that way."""
    attributes = f'device.attributes["{dra.driver}"]'
    product = accelerator.product.partition("-MIG-")[0].removesuffix("-SHARED")
    tests = [
        f'{attributes}.productName.replace(" ", "-") == "{product}"',
        f'{attributes}.cudaComputeCapability.compareTo(semver("{accelerator.resolved_compute_capability}.0")) == 0',
    ]
    if accelerator.mig_profile is not None:
        tests.append(f'{attributes}.profile == "{accelerator.mig_profile}"')
    return " && ".join(tests)
