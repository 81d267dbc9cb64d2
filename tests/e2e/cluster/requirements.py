"""What a machine must have to build the cluster's programs (Go), and to be its node (root and more), and what of it is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import cgroup_roots
from tests.e2e.cluster.programs import GO_MINIMUM, missing_programs

CNI_PLUGINS = Path("/usr/lib/cni")
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""The Debian package of each command."""


BUILD = ".venv/bin/python -m tests.e2e.cluster build"


def missing_for_programs() -> list[str]:
    """Return a sentence for each thing that this machine lacks to build what it has not built yet; no root is needed."""
    if sys.platform != "linux":
        return ["the cluster's programs are built on Linux"]
    return _missing_go()


def missing_requirements(*, install: bool = False) -> list[str]:
    """Return a sentence for each thing that this machine lacks; empty where the cluster can start.

    Args:
        install: Install missing Debian packages first, where that is possible.
    """
    if sys.platform != "linux":
        return ["the cluster needs Linux: its node is this machine"]
    if os.geteuid() != 0:
        return ["the cluster needs root: it makes network namespaces, mounts and cgroups"]
    packages = _missing_packages()
    if packages and install and shutil.which("apt-get"):
        _install(packages)
        packages = _missing_packages()
    missing = [f"install the Debian packages {' '.join(packages)}"] if packages else []
    return [*missing, *_missing_go(), *_missing_kernel()]


def advice(missing: list[str]) -> str:
    """Say why the cluster cannot start, which tests run all the same, and how to do without it."""
    reasons = "".join(f"\n  - {reason}" for reason in missing)
    return (
        f"tests that need a cluster with a node are left out:{reasons}\n"
        "tests/chart (with Helm) and tests/e2e/diffusion_operator (with an API server) run without root; "
        f"`{BUILD}` builds what they need, with Go.\n"
        "E2E_KUBECONFIG=/path/to/kubeconfig runs against a cluster of yours what docs/contributing/cluster.md names."
    )


def _missing_packages() -> list[str]:
    # A root's PATH does not always hold the folders of administration.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    missing = {package for command, package in PACKAGES.items() if not shutil.which(command, path=path)}
    return sorted(missing if (CNI_PLUGINS / "bridge").exists() else {*missing, "containernetworking-plugins"})


def _install(packages: list[str]) -> None:
    print(f"cluster: installing the Debian packages {' '.join(packages)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, stdout=subprocess.DEVNULL, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)


def _missing_go() -> list[str]:
    programs = missing_programs()
    if not programs:
        return []
    wanted = f"install Go {'.'.join(map(str, GO_MINIMUM))} or later, which builds {', '.join(program.name for program in programs)}"
    if not shutil.which("go"):
        return [wanted]
    found = re.search(r"go(\d+)\.(\d+)", subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout)
    if not found or tuple(map(int, found.groups())) < GO_MINIMUM:
        return [wanted]
    return []


def _missing_kernel() -> list[str]:
    if not cgroup_roots():
        return ["mount the cgroup file systems under /sys/fs/cgroup"]
    if "overlay" not in Path("/proc/filesystems").read_text():
        return ["load the kernel's overlay module: `modprobe overlay`"]
    if shutil.which("nsenter") and not os.access(layout.RUN.parent, os.W_OK):
        return [f"make {layout.RUN.parent} writable"]
    return []
