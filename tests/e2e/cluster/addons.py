"""What a cluster has besides Kubernetes: its DNS and its storage."""

from __future__ import annotations

import shutil
from typing import Any

from tests.e2e.cluster import layout
from tests.e2e.cluster.kubectl import Kubectl, Manifest
from tests.e2e.cluster.programs import COREDNS

VOLUME_COUNT = 16
_DNS_LABELS = {"k8s-app": "kube-dns"}


def dns_command() -> list[str]:
    """Return CoreDNS's command line; it runs beside the node's programs, for that spares an image."""
    return [str(COREDNS.path), "-conf", str(layout.CONFIG / "Corefile")]


def write_dns_config() -> None:
    """Write CoreDNS's configuration: the cluster's names and no others, for nothing else can be reached."""
    (layout.CONFIG / "Corefile").write_text(
        f""".:53 {{
    bind {layout.NODE_ADDRESS}
    errors
    ready {layout.NODE_ADDRESS}:8181
    kubernetes {layout.DNS_DOMAIN} in-addr.arpa {{
        kubeconfig {layout.KUBECONFIG}
        ttl 1
    }}
}}
"""
    )


def dns_manifests() -> list[Manifest]:
    """Return the Service whose address every pod's `resolv.conf` holds, and where it leads."""
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": _DNS_LABELS}
    service = {"clusterIP": layout.DNS_SERVICE_ADDRESS, "ports": ports}
    labels = {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": layout.NAME}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [layout.NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": ports,
        },
    ]


def storage_class() -> Manifest:
    """Return the default StorageClass, whose volumes were made beforehand."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": layout.STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }


def volume(number: int) -> Manifest:
    """Return a volume that many pods may write, as on a shared file system."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": _volume_name(number)},
        "spec": {
            "storageClassName": layout.STORAGE_CLASS,
            "capacity": {"storage": "1Ti"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(layout.VOLUMES / _volume_name(number)), "type": "Directory"},
        },
    }


def install_storage(kubectl: Kubectl) -> None:
    """Create the StorageClass and all its volumes."""
    kubectl.apply(storage_class(), *(_empty_volume(number) for number in range(VOLUME_COUNT)))


def renew_volumes(kubectl: Kubectl) -> None:
    """Empty the volumes whose claims are gone, and offer them anew."""
    found: list[dict[str, Any]] = kubectl.json("get", "persistentvolumes")["items"]
    released = {item["metadata"]["name"] for item in found if item["status"].get("phase") == "Released"}
    numbers = [number for number in range(VOLUME_COUNT) if _volume_name(number) in released]
    if numbers:
        kubectl("delete", "persistentvolumes", *map(_volume_name, numbers))
        kubectl.apply(*(_empty_volume(number) for number in numbers))


def _volume_name(number: int) -> str:
    return f"e2e-{number:02}"


def _empty_volume(number: int) -> Manifest:
    folder = layout.VOLUMES / _volume_name(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # A hostPath knows no fsGroup, and pods run as users of their own.
    return volume(number)
