"""What the operator's process is told on its command line: where the cluster and the settings are, and how to run.

What it shall do with deployments is in the settings file; see `settings`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_operator.settings_file import DEFAULT_PATH, SETTINGS_VARIABLE

NAMESPACES_VARIABLE = "DIFFUSION_OPERATOR_NAMESPACES"
"""Namespaces with commas between; the flag wins."""
POD_NAMESPACE_VARIABLE = "POD_NAMESPACE"
POD_NAME_VARIABLE = "POD_NAME"
HEALTH_PORT, METRICS_PORT = 8080, 8081


@dataclass(frozen=True)
class Arguments:
    """How to run."""

    settings: str | None
    """Settings file; None: that of the environment, or the default path."""
    namespaces: tuple[str, ...]
    """Namespaces that are served; empty: all."""
    kubeconfig: str | None
    """None: the pod's own service account, or where there is none the usual kubeconfig."""
    leader_election: bool
    lease_namespace: str | None
    """None: that of the service account or of the kubeconfig's context."""
    lease_name: str
    identity: str | None
    """Holder of the lease; None: made from the host's name."""
    workers: int
    resync_seconds: float
    bind_address: str | None
    """None: every interface."""
    health_port: int
    metrics_port: int
    log_level: str
    log_format: str


def parse_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> Arguments:
    """Read the command line; `argparse` ends the process with code 2 where it is wrong."""
    parsed = _parser().parse_args(arguments)
    named = parsed.namespace or environment.get(NAMESPACES_VARIABLE, "").split(",")
    return Arguments(
        settings=parsed.settings,
        namespaces=tuple(sorted({name.strip() for name in named if name.strip()})),
        kubeconfig=parsed.kubeconfig,
        leader_election=parsed.leader_election,
        lease_namespace=parsed.lease_namespace or environment.get(POD_NAMESPACE_VARIABLE) or None,
        lease_name=parsed.lease_name,
        identity=environment.get(POD_NAME_VARIABLE) or None,
        workers=parsed.workers,
        resync_seconds=parsed.resync_seconds,
        bind_address=parsed.bind_address,
        health_port=parsed.health_port,
        metrics_port=parsed.metrics_port,
        log_level=parsed.log_level,
        log_format=parsed.log_format,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffusion_operator", description="Serve DiffusionDeployments and DiffusionEngines.")
    add = parser.add_argument
    add("--settings", metavar="FILE", type=str, help=f"settings file (default: ${SETTINGS_VARIABLE}, or {Path(DEFAULT_PATH)} if it exists)")
    add(
        "--namespace",
        metavar="NAME",
        action="append",
        help=f"serve this namespace alone; repeatable (default: ${NAMESPACES_VARIABLE}, or all)",
    )
    add("--kubeconfig", metavar="FILE", help="how to reach the cluster (default: the pod's service account, or else $KUBECONFIG)")
    add("--leader-election", action=argparse.BooleanOptionalAction, default=True, help="let one of several replicas write (default: yes)")
    add("--lease-namespace", metavar="NAME", help=f"namespace of the Lease (default: ${POD_NAMESPACE_VARIABLE}, or the service account's)")
    add("--lease-name", metavar="NAME", default="diffusion-operator", help="name of the Lease (default: %(default)s)")
    add("--workers", metavar="N", type=_positive, default=16, help="reconciles at once, for each kind (default: %(default)s)")
    add("--resync-seconds", metavar="S", type=_positive, default=600, help="look at everything anew so often (default: %(default)s)")
    add("--bind-address", metavar="IP", help="address of the two ports below (default: every interface)")
    add("--health-port", metavar="PORT", type=int, default=HEALTH_PORT, help="/healthz and /readyz (default: %(default)s)")
    add("--metrics-port", metavar="PORT", type=int, default=METRICS_PORT, help="/metrics (default: %(default)s)")
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(default: %(default)s)")
    add("--log-format", choices=["json", "text"], default="json", help="one JSON object a line, or plain text (default: %(default)s)")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value
