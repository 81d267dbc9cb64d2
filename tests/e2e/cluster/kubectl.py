"""kubectl, of the cluster's own version where that was built: what a user would type."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.cluster.programs import KUBE
from tests.e2e.cluster.reader import Reader

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
        command = [_binary(), *arguments]
        return subprocess.run(command, input=input, env=self._environment(), capture_output=True, text=True, check=False)

    @contextmanager
    def forwarded(self, target: str, port: int, namespace: str) -> Iterator[str]:
        """Forward a port of `service/NAME` or `pod/NAME` to this machine, and give its address; it leads to one pod, and ends with it.

        Raises:
            ClusterError: kubectl cannot; the message is its own.
        """
        command = [_binary(), "port-forward", target, f":{port}", "--address=127.0.0.1", "--namespace", namespace]
        with subprocess.Popen(command, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                told = re.search(r"Forwarding from (\S+) ->", process.stdout.readline())
                if told is None:
                    raise ClusterError(f"kubectl port-forward {target}: {process.stderr.read().strip()}")
                yield told[1]
            finally:
                process.terminate()

    def json(self, *arguments: str | Path) -> Any:
        """Return what kubectl prints with `--output json`."""
        return json.loads(self(*arguments, "--output", "json"))

    def read(self, kind: str, namespace: str, name: str = "", selector: str = "") -> Any:
        """Return an object, or the list of a kind, as `json("get", …)` does, but so fast that a test may wait with it."""
        if not Reader.knows(kind):
            return self.json("get", kind, *([name] if name else []), "--namespace", namespace, f"--selector={selector}")
        return self._reader.get(kind, namespace, name, selector)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.kubeconfig)

    def apply(self, *manifests: Manifest, namespace: str | None = None) -> None:
        """Apply manifests as the server sees them (server-side apply)."""
        scope: Sequence[str] = ("--namespace", namespace) if namespace else ()
        content = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self("apply", "--server-side", "--force-conflicts", *scope, "--filename", "-", input=json.dumps(content))

    def wait(self, condition: str, *objects: str, namespace: str | None = None, seconds: int = 60) -> None:
        """Wait for a condition (`condition=Ready`, `jsonpath={.status.phase}=Bound`) of objects that exist."""
        scope = ("--namespace", namespace) if namespace else ()
        self("wait", f"--for={condition}", f"--timeout={seconds}s", *scope, *objects)

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        if self.kubeconfig == layout.KUBECONFIG:
            # What kubectl remembers of a server must not outlive it: the next cluster has the same address.
            environment["KUBECACHEDIR"] = str(layout.RUN / "kubectl-cache")
        return environment


def _binary() -> str:
    return str(KUBE.folder / "kubectl") if KUBE.is_built() else shutil.which("kubectl") or "kubectl"
