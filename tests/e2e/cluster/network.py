"""The cluster's network namespace and its link to this machine."""

from __future__ import annotations

import subprocess

from tests.e2e.cluster import layout


def inside() -> list[str]:
    """Return the command prefix that runs a program in the cluster's network.

    `ip netns exec` is no substitute: it mounts `/sys` anew and hides the cgroups.
    """
    return ["nsenter", f"--net={layout.NETWORK_NAMESPACE}"]


def create_network() -> None:
    """Create namespace, link and routes; the caller made sure that none of them exist."""
    _run("ip", "netns", "add", layout.NAME)
    _run("ip", "link", "add", layout.MACHINE_INTERFACE, "type", "veth", "peer", "name", "machine0", "netns", layout.NAME)
    _run("ip", "addr", "add", f"{layout.MACHINE_ADDRESS}/30", "dev", layout.MACHINE_INTERFACE)
    _run("ip", "link", "set", layout.MACHINE_INTERFACE, "up")
    _run_inside("ip", "link", "set", "lo", "up")
    _run_inside("ip", "addr", "add", f"{layout.LINK_ADDRESS}/30", "dev", "machine0")
    _run_inside("ip", "link", "set", "machine0", "up")
    # A bridge without members stands in for the node's network card. The default route leads into it and so nowhere, but without one
    # a Service's address would be refused before kube-proxy's rules rewrite it.
    _run_inside("ip", "link", "add", "node0", "type", "bridge")
    _run_inside("ip", "addr", "add", f"{layout.NODE_ADDRESS}/24", "dev", "node0")
    _run_inside("ip", "link", "set", "node0", "up")
    _run_inside("ip", "route", "add", "default", "dev", "node0")
    _run_inside("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1")
    _run_inside("sysctl", "-qwe", "net.bridge.bridge-nf-call-iptables=1")
    for network in (layout.NODE_NETWORK, layout.POD_NETWORK, layout.SERVICE_NETWORK):
        _run("ip", "route", "add", network, "via", layout.LINK_ADDRESS, "dev", layout.MACHINE_INTERFACE)


def remove_network() -> None:
    """Remove what `create_network` made, whole or not; interfaces and routes go with the namespace."""
    for command in (("ip", "link", "del", layout.MACHINE_INTERFACE), ("ip", "netns", "del", layout.NAME)):
        subprocess.run(command, capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _run_inside(*command: str) -> None:
    _run(*inside(), *command)
