"""Nodes without a machine, kept alive by KWOK: their pods are said to run, and nothing does.

They answer what no machine at hand can: where pods land on 8-GPU nodes, and what an autoscaler does with fifty replicas.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.e2e.cluster import layout
from tests.e2e.cluster.kubectl import Kubectl, Manifest
from tests.e2e.cluster.processes import is_running, start
from tests.e2e.cluster.programs import KWOK

SIMULATED = {"diffusionoperator.io/simulated": "true"}
B200_LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-B200",
    "nvidia.com/gpu.memory": "183359",
    "nvidia.com/gpu.compute.major": "10",
    "nvidia.com/gpu.compute.minor": "0",
    "nvidia.com/gpu.present": "true",
}
"""Labels that GPU feature discovery gives a node of DGX B200.

Source: https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery.
"""


def start_kwok(kubectl: Kubectl, nodes: int, labels: Mapping[str, str] = B200_LABELS, gpus: int = 8, name: str = "b200") -> list[str]:
    """Add simulated nodes `<name>-0` to `<name>-<nodes - 1>` and wait until they are Ready.

    Returns:
        The nodes' names. `stop_kwok` or the cluster's end removes them.
    """
    if not is_running("kwok"):
        start("kwok", *_command())
    names = [f"{name}-{number}" for number in range(nodes)]
    kubectl.apply(*(simulated_node(each, labels, gpus) for each in names))
    if names:
        kubectl.wait("condition=Ready", *(f"node/{each}" for each in names))
    return names


def stop_kwok(kubectl: Kubectl) -> None:
    """Remove all simulated nodes and the pods on them; KWOK itself stays."""
    kubectl("delete", "nodes", "--selector", ",".join(f"{name}={value}" for name, value in SIMULATED.items()))


def simulated_node(name: str, labels: Mapping[str, str], gpus: int) -> Manifest:
    """Return a node with GPUs, tainted as GPU nodes are, so that nothing lands there that does not ask for one."""
    capacity = {"cpu": "224", "memory": "2Ti", "ephemeral-storage": "1Ti", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**labels, **SIMULATED, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def _command() -> list[str]:
    return [
        str(KWOK.path),
        f"--kubeconfig={layout.KUBECONFIG}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={','.join(f'{name}={value}' for name, value in SIMULATED.items())}",
        f"--node-ip={layout.NODE_ADDRESS}",
        "--node-lease-duration-seconds=40",
    ]
