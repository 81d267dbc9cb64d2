"""The cluster of the user's kubeconfig, by kubectl: whoever may reach it so, by whatever plug-in, reaches it here."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from diffusionctl.errors import ClusterError, UsageError

FIELD_MANAGER = "diffusionctl"


@dataclass(frozen=True)
class Cluster:
    """One namespace of it."""

    namespace: str | None = None
    """None: that of the context."""
    context: str | None = None
    """None: the current one."""

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Read an object.

        Raises:
            UsageError: There is none of that name.
            ClusterError: kubectl is missing, or the cluster refused.
        """
        found = self._kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        if not found:
            raise UsageError(f"there is no {kind} {name} in {self._where}; `kubectl get {kind} --all-namespaces` lists them")
        body: dict[str, Any] = json.loads(found)
        return body

    def items(self, kind: str, selector: str) -> list[dict[str, Any]]:
        """Read all objects with these labels.

        Raises:
            ClusterError: As `get`.
        """
        listed: dict[str, list[dict[str, Any]]] = json.loads(self._kubectl("get", kind, f"--selector={selector}", "--output=json"))
        return listed["items"]

    def annotate(self, kind: str, name: str, annotation: str, value: str) -> None:
        """Set an annotation.

        Raises:
            ClusterError: As `get`.
        """
        self._kubectl("annotate", kind, name, "--overwrite", f"{annotation}={value}", f"--field-manager={FIELD_MANAGER}")

    def patch(self, kind: str, name: str, operations: list[dict[str, Any]]) -> None:
        """Apply a JSON Patch (RFC 6902).

        Raises:
            ClusterError: As `get`; also where a `test` of the patch does not hold.
        """
        self._kubectl("patch", kind, name, "--type=json", f"--patch={json.dumps(operations)}", f"--field-manager={FIELD_MANAGER}")

    @property
    def _where(self) -> str:
        return f"namespace {self.namespace}" if self.namespace else "the context's namespace"

    def _kubectl(self, *arguments: str) -> str:
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("kubectl is not on the PATH; install it: https://kubernetes.io/docs/tasks/tools/")
        scope = [*(["--namespace", self.namespace] if self.namespace else []), *(["--context", self.context] if self.context else [])]
        done = subprocess.run([program, *scope, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(done.stderr.strip().removeprefix("error: ") or f"kubectl ended with code {done.returncode}")
        return done.stdout
