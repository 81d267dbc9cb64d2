"""kubectl, of the cluster's own version where that was built: what a user would type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.cluster.programs import KUBE

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl against one cluster."""

    kubeconfig: Path

    def __call__(self, *arguments: str | Path, input: str | None = None) -> str:
        """Return what kubectl prints.

        Raises:
            ClusterError: kubectl failed; the message is its own.
        """
        done = self.run(*arguments, input=input)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def run(self, *arguments: str | Path, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Return how kubectl ended, for a test that expects it to fail."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        if self.kubeconfig == layout.KUBECONFIG:
            # What kubectl remembers of a server must not outlive it: the next cluster has the same address.
            environment["KUBECACHEDIR"] = str(layout.RUN / "kubectl-cache")
        return subprocess.run([_binary(), *arguments], input=input, env=environment, capture_output=True, text=True, check=False)

    def json(self, *arguments: str | Path) -> Any:
        """Return what kubectl prints with `--output json`."""
        return json.loads(self(*arguments, "--output", "json"))

    def apply(self, *manifests: Manifest, namespace: str | None = None) -> None:
        """Apply manifests as the server sees them (server-side apply)."""
        scope: Sequence[str] = ("--namespace", namespace) if namespace else ()
        content = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self("apply", "--server-side", "--force-conflicts", *scope, "--filename", "-", input=json.dumps(content))

    def wait(self, condition: str, *objects: str, namespace: str | None = None, seconds: int = 60) -> None:
        """Wait for a condition (`condition=Ready`, `jsonpath={.status.phase}=Bound`) of objects that exist."""
        scope = ("--namespace", namespace) if namespace else ()
        self("wait", f"--for={condition}", f"--timeout={seconds}s", *scope, *objects)


def _binary() -> str:
    return str(KUBE.folder / "kubectl") if KUBE.is_built() else shutil.which("kubectl") or "kubectl"
