"""`python -m tests.e2e.cluster up|down|status|kubeconfig|path`."""

from __future__ import annotations

import argparse
import subprocess
import sys

from tests.e2e.cluster import layout, lifecycle
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.cluster.programs import PROGRAMS, build_programs, end_with_input
from tests.e2e.cluster.simulated_nodes import start_kwok


def main() -> int:
    """Run one command; exit 1 with a sentence where it cannot be done."""
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except (ClusterError, subprocess.CalledProcessError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.cluster", description="A real Kubernetes cluster on this machine, for tests."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser(
        "up", help="start it, and keep it until `down`; the first time builds Kubernetes, which takes a quarter of an hour"
    )
    up.add_argument("--kwok", type=int, default=0, metavar="N", help="add N simulated nodes of 8 B200 GPUs each")
    down = commands.add_parser("down", help="remove it")
    down.add_argument("--force", action="store_true", help="even while tests use it")
    commands.add_parser("status", help="say whether it runs")
    commands.add_parser("kubeconfig", help="print the path of an administrator's kubeconfig")
    commands.add_parser("path", help="print the folders of kubectl, helm, coredns and kwok, for PATH")
    build = commands.add_parser("build", help="build the programs and start nothing; needs Go, not root")
    build.add_argument("--end-with-input", action="store_true", help="end when standard input is closed, for a process that may die")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "up":
            kubectl = lifecycle.up()
            if arguments.kwok:
                start_kwok(kubectl, arguments.kwok)
            print(lifecycle.status())
        case "down":
            lifecycle.down(force=arguments.force)
        case "status":
            print(lifecycle.status())
        case "kubeconfig":
            print(layout.KUBECONFIG)
        case "path":
            print(":".join(str(program.folder) for program in PROGRAMS))
        case "build":
            if arguments.end_with_input:
                end_with_input()
            build_programs()


sys.exit(main())
