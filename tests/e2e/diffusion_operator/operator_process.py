"""The operator as a process of its own, outside the cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.cluster.processes import wait_until
from tests.e2e.diffusion_operator.control_plane import OPERATOR, ControlPlane, free_ports

READY_SECONDS = 60
WRITES = ("POST", "PATCH", "DELETE")
"""Methods that write objects; PUT renews the Lease and nothing else."""


class OperatorProcess:
    """Use as a context manager; ends by SIGTERM."""

    def __init__(
        self, control_plane: ControlPlane, name: str, *arguments: str, settings: dict[str, Any] | None = None, user: str = OPERATOR
    ) -> None:
        self.name, self.log = name, control_plane.folder / f"{name}.log"
        self._health, self._metrics = free_ports(2)
        self._file = control_plane.folder / f"{name}-settings.yaml"
        self._file.write_text(json.dumps(settings or {}))
        self._command = [
            *(sys.executable, "-m", "diffusion_operator", f"--kubeconfig={control_plane.kubeconfig(user)}", f"--settings={self._file}"),
            *("--lease-namespace=default", "--bind-address=127.0.0.1"),
            *(f"--health-port={self._health}", f"--metrics-port={self._metrics}", *arguments),
        ]

    def __enter__(self) -> OperatorProcess:
        environment = {**os.environ, "POD_NAME": self.name, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        wait_until(f"{self.name} to be ready (see {self.log})", lambda: self.get(self._health, "readyz")[0] == 200, READY_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def get(self, port: int, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric over every series with these labels."""
        total = 0.0
        for line in self.get(self._metrics, "metrics")[1].splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")).items():
                total += float(match[2])
        return total

    def writes(self) -> float:
        return sum(self.metric("rest_client_requests_total", method=method) for method in WRITES)

    def leads(self) -> bool:
        return self.metric("leader_election_master_status") == 1

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in Path(self.log).read_text().splitlines() if line.startswith("{")]
