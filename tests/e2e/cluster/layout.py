"""Names, addresses and paths of the one cluster that a machine can hold; no I/O.

The node lives in a network namespace of its own. A pair of virtual interfaces joins it to this machine, which can then reach the
API server, pods and Services by their addresses, and be reached by pods as `MACHINE_ADDRESS`. Beyond this machine, pods reach nothing.
"""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
NAME = "diffusion-operator-e2e"
NODE = "e2e-node"

RUN = Path("/var/tmp/diffusion-operator-e2e")
"""All state, on a disk that holds an overlay's upper layer; short, for a socket's path ends at 107 characters."""
LOGS = RUN / "logs"
PIDS = RUN / "pids"
CERTIFICATES = RUN / "certificates"
CONFIG = RUN / "config"
VOLUMES = RUN / "volumes"
CONTAINERD_SOCKET = RUN / "containerd.sock"
KUBECONFIG = CERTIFICATES / "admin.kubeconfig"
IN_USE = Path(f"{RUN}.users")
"""Held by each process that uses the cluster; outside `RUN`, which comes and goes."""

NETWORK_NAMESPACE = Path("/run/netns") / NAME
MACHINE_INTERFACE = "do-e2e"
MACHINE_ADDRESS = "10.77.1.1"
LINK_ADDRESS = "10.77.1.2"
NODE_ADDRESS = "10.77.0.1"
NODE_NETWORK = "10.77.0.0/24"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
DNS_DOMAIN = "cluster.local"
API_PORT = 6443
API_URL = f"https://{NODE_ADDRESS}:{API_PORT}"
ETCD_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"

CGROUP = NAME
STORAGE_CLASS = "e2e"
BUSYBOX_IMAGE = "localhost/busybox:1"
PAUSE_IMAGE = "localhost/pause:1"
