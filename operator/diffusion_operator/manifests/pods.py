"""What every pod of the operator has: the restricted security profile, tolerations, pull secrets, and no service-account token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_api.accelerator import Accelerator
from diffusion_operator.manifests.accelerator import node_selector, pod_claims, uses_claims
from diffusion_operator.manifests.base import Manifest, without_none
from diffusion_operator.manifests.labels import managed_labels
from diffusion_operator.settings import AccessMode, OperatorSettings, PvcStore, Resources

CA_FILE = "/etc/diffusion-ca/ca.crt"
CA_VOLUME = "ca"
TMP_VOLUME = "tmp"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")


def pod_spec(
    accelerator: Accelerator,
    settings: OperatorSettings,
    *,
    containers: list[Manifest],
    volumes: list[Manifest],
    claim_template: str,
    **fields: object,
) -> Manifest:
    """Build a pod spec for an accelerator.

    Args:
        accelerator: Which node or device the pod needs.
        settings: The operator's.
        containers: Its containers, with security context and mounts.
        volumes: Its volumes beside `/tmp` and the certificates.
        claim_template: Name of the ResourceClaimTemplate, used only under DRA.
        fields: Further fields of the pod spec; None is left out.
    """
    selector = node_selector(accelerator, settings)
    return without_none(
        {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security_context(settings),
            "imagePullSecrets": [{"name": name} for name in settings.images.pull_secrets] or None,
            "nodeSelector": selector or None,
            "affinity": _store_affinity(settings),
            "tolerations": [dict(toleration) for toleration in settings.tolerations] or None,
            "priorityClassName": settings.priority_class_name,
            "runtimeClassName": None if accelerator.is_cpu else settings.runtime_class_name,
            "schedulerName": settings.scheduler_name,
            "resourceClaims": pod_claims(claim_template) if uses_claims(accelerator, settings) else None,
            "containers": containers,
            "volumes": [{"name": TMP_VOLUME, "emptyDir": {}}, *_ca_volumes(settings), *volumes],
            **fields,
        }
    )


def container(
    name: str, image: str, settings: OperatorSettings, *, env: list[Manifest], mounts: list[Manifest], **fields: object
) -> Manifest:
    """Build a container under the restricted profile, with a read-only root and a writable `/tmp`."""
    ca_mounts = [{"name": CA_VOLUME, "mountPath": CA_FILE.rpartition("/")[0], "readOnly": True}] if settings.ca_config_map else []
    return without_none(
        {
            "name": name,
            "image": settings.images.resolved(image),
            "imagePullPolicy": settings.images.pull_policy.value,
            "env": _by_name([*env, *_ca_env(settings), *settings.env]) or None,
            "volumeMounts": [{"name": TMP_VOLUME, "mountPath": "/tmp"}, *ca_mounts, *mounts],  # noqa: S108  # An emptyDir of the pod.
            "securityContext": container_security_context(),
            # The last lines of the log stand in where a container dies without a word.
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **fields,
        }
    )


def pod_security_context(settings: OperatorSettings) -> Manifest:
    """The pod's half of the restricted profile. Source: Kubernetes, "Pod Security Standards"."""
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.user_id,
        "runAsGroup": settings.user_id,
        "fsGroup": settings.user_id,
        # A store of many files would else be walked at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context() -> Manifest:
    """The container's half of the restricted profile."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def requests_and_limits(resources: Resources) -> tuple[Manifest, Manifest]:
    """CPU is requested and not limited; memory is both, so that a pod is never evicted for what others take."""
    requests = without_none({"cpu": resources.cpu, "memory": resources.memory, "ephemeral-storage": resources.ephemeral_storage})
    return requests, {"memory": resources.memory}


def variable(name: str, value: str) -> Manifest:
    """One environment variable."""
    return {"name": name, "value": value}


def _store_affinity(settings: OperatorSettings) -> Manifest | None:
    """Keep a namespace's pods on the node that has its ReadWriteOnce volume; of no pods, the first goes where it likes.

    The scheduler does not do so by itself: a second node's pod would wait for the volume for ever.
    Source: Kubernetes, "Assigning Pods to Nodes", inter-pod affinity; a pod that matches its own term may be the first.
    """
    store = settings.engine_store
    if not isinstance(store, PvcStore) or store.access_mode is not AccessMode.READ_WRITE_ONCE:
        return None
    term = {"labelSelector": {"matchLabels": managed_labels()}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _by_name(env: Iterable[Mapping[str, Any]]) -> list[Manifest]:
    """Each variable once, as server-side apply wants it: the last one wins, which is the installation's."""
    return [dict(entry) for entry in {entry["name"]: entry for entry in env}.values()]


def _ca_env(settings: OperatorSettings) -> list[Manifest]:
    return [variable(name, CA_FILE) for name in CA_VARIABLES] if settings.ca_config_map else []


def _ca_volumes(settings: OperatorSettings) -> list[Manifest]:
    return [{"name": CA_VOLUME, "configMap": {"name": settings.ca_config_map}}] if settings.ca_config_map else []
