"""The node: configuration and command lines of containerd, the kubelet and kube-proxy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.e2e.cluster import layout
from tests.e2e.cluster.programs import KUBE
from tests.e2e.cluster.requirements import CNI_PLUGINS
from tests.e2e.cluster.runtime_spec import base_runtime_spec

_CERTIFICATES = layout.CERTIFICATES
_CONFIG = layout.CONFIG
_CRI = "io.containerd.grpc.v1.cri"


def write_node_config() -> None:
    """Write every file that the node's programs read."""
    (_CONFIG / "cni").mkdir(parents=True)
    _write("cni/10-e2e.conflist", cni_config())
    _write("base-runtime-spec.json", base_runtime_spec())
    _write("kubelet.json", kubelet_config())
    _write("kube-proxy.json", proxy_config())
    (_CONFIG / "containerd.toml").write_text(toml(containerd_config()))
    (_CONFIG / "resolv.conf").touch()


def containerd_command() -> list[str]:
    """Return containerd's command line."""
    return ["containerd", "--config", str(_CONFIG / "containerd.toml")]


def kubelet_command() -> list[str]:
    """Return the kubelet's command line."""
    return [
        str(KUBE.folder / "kubelet"),
        f"--config={_CONFIG / 'kubelet.json'}",
        f"--kubeconfig={_CERTIFICATES / 'kubelet.kubeconfig'}",
        f"--root-dir={layout.RUN / 'kubelet'}",
        f"--cert-dir={layout.RUN / 'kubelet' / 'pki'}",
        f"--hostname-override={layout.NODE}",
        f"--node-ip={layout.NODE_ADDRESS}",
    ]


def proxy_command() -> list[str]:
    """Return kube-proxy's command line."""
    return [str(KUBE.folder / "kube-proxy"), f"--config={_CONFIG / 'kube-proxy.json'}"]


def containerd_config() -> dict[str, Any]:
    """Return containerd's configuration, version 2, which 1.6 (Debian 12) and later read."""
    runtime = {
        "runtime_type": "io.containerd.runc.v2",
        "base_runtime_spec": str(_CONFIG / "base-runtime-spec.json"),
        "options": {"SystemdCgroup": False, "Root": str(layout.RUN / "runc")},
    }
    cri = {
        "sandbox_image": layout.PAUSE_IMAGE,
        # Lowering oom_score_adj wants CAP_SYS_RESOURCE. Where root lacks it, as in many containers, every pod would else die with
        # "can't get final child's PID from pipe: EOF".
        "restrict_oom_score_adj": True,
        "netns_mounts_under_state_dir": True,
        "cni": {"bin_dir": str(CNI_PLUGINS), "conf_dir": str(_CONFIG / "cni")},
        "containerd": {"snapshotter": "overlayfs", "default_runtime_name": "runc", "runtimes": {"runc": runtime}},
    }
    return {
        "version": 2,
        "root": str(layout.RUN / "containerd" / "root"),
        "state": str(layout.RUN / "containerd" / "state"),
        "disabled_plugins": [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")],
        "grpc": {"address": str(layout.CONTAINERD_SOCKET)},
        "plugins": {_CRI: cri},
    }


def cni_config() -> dict[str, Any]:
    """Return the pods' network: one bridge, from which only this machine can be reached."""
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.RUN / "cni"),
        "ranges": [[{"subnet": layout.POD_NETWORK.replace("/16", "/24")}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": layout.NAME, "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}


def kubelet_config() -> dict[str, Any]:
    """Return the kubelet's configuration.

    Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Containers of CI often have cgroup v1 and no systemd.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.CGROUP}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # A machine whose disk is nearly full must not evict a test's pods or drop their images.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": str(_CONFIG / "resolv.conf"),
        "clusterDomain": layout.DNS_DOMAIN,
        "clusterDNS": [layout.DNS_SERVICE_ADDRESS],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(_CERTIFICATES / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(_CERTIFICATES / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(_CERTIFICATES / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.CONTAINERD_SOCKET}",
        "podLogsDir": str(layout.LOGS / "pods"),
        "volumePluginDir": str(layout.RUN / "volume-plugins"),
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
    }


def proxy_config() -> dict[str, Any]:
    """Return kube-proxy's configuration.

    Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/.
    """
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(_CERTIFICATES / "kube-proxy.kubeconfig")},
        "clusterCIDR": layout.POD_NETWORK,
        "hostnameOverride": layout.NODE,
        # The kernel's connection limits belong to the machine, and are read-only in a namespace.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def toml(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Write nested mappings as TOML, whose strings, lists and booleans are JSON's."""
    values = [f"{name} = {json.dumps(value)}" for name, value in tables.items() if not isinstance(value, Mapping)]
    heading = [f"[{'.'.join(json.dumps(name) for name in path)}]"] if path else []
    inner = [toml(value, (*path, name)) for name, value in tables.items() if isinstance(value, Mapping)]
    return "\n".join((*heading, *values, *inner))


def _write(name: str, content: Mapping[str, Any]) -> None:
    (_CONFIG / name).write_text(json.dumps(content, indent=2))
