"""The cluster's life: up, down, and held up while tests use it.

A machine holds one, which all processes share. `up` always starts from nothing, so that no crash leaves anything behind that matters.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.e2e.cluster import addons, control_plane, images, layout, node
from tests.e2e.cluster.certificates import write_certificates
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.network import create_network, remove_network
from tests.e2e.cluster.processes import ClusterError, create_cgroups, daemon_names, is_running, kill_all, start, wait_until
from tests.e2e.cluster.programs import build_programs
from tests.e2e.cluster.requirements import advice, missing_requirements

DAEMONS = ("etcd", "kube-apiserver", "containerd", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
_CHECKOUT = layout.RUN / "checkout"
_READY = layout.RUN / "ready"
_TEMPORARY = layout.RUN / "temporary"
"""There while nobody but tests asked for the cluster: the last of them takes it down."""


def up(*, keep: bool = True) -> Kubectl:
    """Start the cluster unless it runs.

    Args:
        keep: Let it run until `down`; otherwise until the last user of `held_up` leaves.

    Raises:
        ClusterError: The machine lacks something, another checkout's cluster is up, or a program did not start.
    """
    with _changing():
        if not is_up():
            _start()
            _TEMPORARY.touch()
        elif _CHECKOUT.read_text() != str(layout.REPOSITORY):
            raise ClusterError(
                f"the cluster of {_CHECKOUT.read_text()} is up, whose Python environments it holds; take it down there first"
            )
        if keep:
            _TEMPORARY.unlink(missing_ok=True)
    return Kubectl(layout.KUBECONFIG)


def is_up() -> bool:
    """Tell whether the whole cluster started and every program of it still runs."""
    return _READY.exists() and all(is_running(name) for name in DAEMONS)


def down(*, force: bool = False) -> None:
    """Remove the cluster, or what a crash left of it; its logs stay.

    Raises:
        ClusterError: Tests use it, and it was not forced.
    """
    with _users() as users:
        if not force and not _is_alone(users):
            raise ClusterError("tests use the cluster; wait for them, or force it")
        with _changing():
            _remove()


@contextmanager
def held_up() -> Iterator[Kubectl]:
    """Hold the cluster up; if it was started for tests alone, the last of them takes it down."""
    with _users() as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield up(keep=False)
        if _is_alone(users) and _TEMPORARY.exists():
            with _changing():
                _remove()


def _start() -> None:
    if missing := missing_requirements(install=True):
        raise ClusterError(advice(missing))
    build_programs()
    _remove()
    shutil.rmtree(layout.RUN, ignore_errors=True)
    for folder in (layout.LOGS, layout.PIDS, layout.CONFIG, layout.VOLUMES):
        folder.mkdir(parents=True)
    _CHECKOUT.write_text(str(layout.REPOSITORY))
    write_certificates(layout.CERTIFICATES)
    node.write_node_config()
    addons.write_dns_config()
    create_cgroups()
    create_network()
    _start_programs(Kubectl(layout.KUBECONFIG))
    _READY.touch()


def _start_programs(kubectl: Kubectl) -> None:
    start("etcd", *control_plane.etcd_command())
    start("kube-apiserver", *control_plane.api_server_command())
    start("containerd", *node.containerd_command())
    wait_until("containerd", lambda: subprocess.run([*images.ctr(), "version"], capture_output=True, check=False).returncode == 0, 30)
    images.import_own_images()
    wait_until("the API server", lambda: kubectl.run("get", "--raw", "/readyz").returncode == 0, 120)
    start("kube-controller-manager", *control_plane.controller_manager_command())
    start("kube-scheduler", *control_plane.scheduler_command())
    start("kubelet", *node.kubelet_command())
    start("kube-proxy", *node.proxy_command())
    start("coredns", *addons.dns_command())
    kubectl.apply(*addons.dns_manifests())
    addons.install_storage(kubectl)
    kubectl.wait("create", f"node/{layout.NODE}")
    kubectl.wait("condition=Ready", f"node/{layout.NODE}")
    kubectl.wait("create", "serviceaccount/default", namespace="default")
    wait_until("CoreDNS", _is_dns_ready, 60)


def _is_dns_ready() -> bool:
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"http://{layout.NODE_ADDRESS}:8181/ready", timeout=2) as answer:
        return int(answer.status) == 200
    return False


def _remove() -> None:
    """Kill and unmount everything of ours, found by cgroup and by path; nothing is trusted to have been written down."""
    sockets = _shim_sockets()
    kill_all()
    for mount in _mounts():
        subprocess.run(["umount", "--lazy", mount], check=False)
    remove_network()
    for path in (*sockets, *Path("/var/lib/cni/results").glob(f"{layout.NAME}-*")):
        path.unlink(missing_ok=True)
    for path in layout.RUN.iterdir() if layout.RUN.is_dir() else ():
        if path != layout.LOGS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mounts() -> list[str]:
    """Return the mounts below our folder, innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{layout.RUN}/")), reverse=True)


def _shim_sockets() -> list[Path]:
    """Return the sockets of pods' shims, which lie in a folder that every containerd of the machine shares."""
    bundles = layout.RUN.glob("containerd/state/io.containerd.runtime.v2.task/*/*/address")
    return [Path(address.read_text().removeprefix("unix://")) for address in bundles]


@contextmanager
def _changing() -> Iterator[None]:
    with Path(f"{layout.RUN}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _users() -> Iterator[int]:
    with layout.IN_USE.open("w") as file:
        yield file.fileno()


def _is_alone(users: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def status() -> str:
    """Describe the cluster for people."""
    if is_up():
        return f"up, of {_CHECKOUT.read_text()}; KUBECONFIG={layout.KUBECONFIG}"
    dead = [name for name in DAEMONS if not is_running(name)]
    return f"broken: {', '.join(dead)} ended; see {layout.LOGS}" if daemon_names() else "down"
