"""Nodes without a machine, kept alive by KWOK: their pods are said to run, and nothing does.

They answer what no machine at hand can: where pods land on 8-GPU nodes, and what an autoscaler does with fifty replicas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.e2e.cluster import layout
from tests.e2e.cluster.kubectl import Kubectl, Manifest
from tests.e2e.cluster.processes import is_running, start, stop, wait_until
from tests.e2e.cluster.programs import KWOK

SIMULATED = {"diffusionoperator.io/simulated": "true"}
_SELECTOR = ",".join(f"{name}={value}" for name, value in SIMULATED.items())
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


def start_kwok(
    kubectl: Kubectl, nodes: int, labels: Mapping[str, str] = B200_LABELS, gpus: int = 8, name: str = "b200", last_words: str = ""
) -> list[str]:
    """Add simulated nodes `<name>-0` to `<name>-<nodes - 1>` and wait until they are Ready.

    Args:
        kubectl: Of the cluster.
        nodes: How many.
        labels: Of each.
        gpus: Of each.
        name: What their names begin with.
        last_words: Termination message of every container of a Job's pod.

    Returns:
        The nodes' names. `stop_kwok` or the cluster's end removes them.
    """
    stages = "---\n".join(json.dumps(stage) + "\n" for stage in pod_stages(last_words))
    config = layout.CONFIG / "kwok.yaml"
    if is_running("kwok") and config.read_text() != stages:
        stop("kwok")
    if not is_running("kwok"):
        config.write_text(stages)
        start("kwok", *_command())
    names = [f"{name}-{number}" for number in range(nodes)]
    kubectl.apply(*(simulated_node(each, labels, gpus) for each in names))
    wait_until("the simulated nodes to be ready", lambda: set(names) <= _ready(kubectl), 60 + nodes)
    return names


def _ready(kubectl: Kubectl) -> set[str]:
    """Return the simulated nodes that are ready. `kubectl wait` asks for one after the other, a few a second."""
    nodes = kubectl.json("get", "nodes", "--selector", _SELECTOR)["items"]
    return {
        node["metadata"]["name"]
        for node in nodes
        if any((each["type"], each["status"]) == ("Ready", "True") for each in node["status"].get("conditions", []))
    }


def stop_kwok(kubectl: Kubectl) -> None:
    """Remove all simulated nodes and the pods on them; KWOK itself stays."""
    kubectl("delete", "nodes", "--selector", _SELECTOR)


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


def pod_stages(last_words: str = "") -> list[Manifest]:
    """Return KWOK's rules for pods: each is ready at once; a Job's then ends well, with these last words; a deleted one goes.

    Source: https://kwok.sigs.k8s.io/docs/user/stages-configuration/.
    """
    alive = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
    new = {"key": ".status.podIP", "operator": "DoesNotExist"}
    running = {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    of_a_job = {"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]}
    said = f"{{{{ {json.dumps(last_words)} | Quote }}}}"
    ended = f"{{terminated: {{exitCode: 0, reason: Completed, finishedAt: {{{{ Now | Quote }}}}, message: {said}}}}}"
    started = "{running: {startedAt: {{ Now | Quote }}}}"
    conditions = [
        f"{{type: {each}, status: 'True', lastTransitionTime: {{{{ Now | Quote }}}}}}"
        for each in ("Initialized", "ContainersReady", "Ready")
    ]
    address = "{{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}"
    ready = "\n".join(
        (
            "phase: Running",
            "startTime: {{ Now | Quote }}",
            "hostIP: {{ NodeIPWith .spec.nodeName | Quote }}",
            f"podIP: {address}",
            f"conditions: [{', '.join(conditions)}]",
            _containers("initContainerStatuses", "initContainers", "true", ended),
            _containers("containerStatuses", "containers", "true", started),
        )
    )
    done = "\n".join(("phase: Succeeded", _containers("containerStatuses", "containers", "false", ended)))
    return [
        _stage("pod-ready", [alive, new], {"statusTemplate": ready}),
        _stage("job-pod-ended", [alive, running, of_a_job], {"statusTemplate": done}),
        _stage("pod-deleted", [{**alive, "operator": "Exists"}], {"finalizers": {"empty": True}, "delete": True}),
    ]


def _stage(name: str, when: list[dict[str, Any]], then: dict[str, Any]) -> Manifest:
    spec = {"resourceRef": {"apiGroup": "v1", "kind": "Pod"}, "selector": {"matchExpressions": when}, "next": then}
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def _containers(field: str, containers: str, ready: str, state: str) -> str:
    entry = (
        f"{{name: {{{{ .name | Quote }}}}, image: {{{{ .image | Quote }}}}, imageID: '', ready: {ready}, restartCount: 0, state: {state}}}"
    )
    return f"{field}:\n{{{{ range .spec.{containers} }}}}\n- {entry}\n{{{{ end }}}}"


def _command() -> list[str]:
    return [
        str(KWOK.path),
        f"--kubeconfig={layout.KUBECONFIG}",
        f"--config={layout.CONFIG / 'kwok.yaml'}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={_SELECTOR}",
        f"--node-ip={layout.NODE_ADDRESS}",
        "--node-lease-duration-seconds=40",
    ]
