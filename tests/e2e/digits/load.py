"""Pictures that are asked for one after another, each over a connection of its own, as clients behind a Service do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine_runtime.client import ServerError, generate
from tests.e2e.cluster.kubectl import Kubectl, Manifest

POD = "asking"
PAUSE_SECONDS = 0.1
"""About as long as a picture takes: half of the time each client has one under way, and leaves a node of two cores something for builds."""
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Load(Protocol):
    """What came of the requests so far."""

    @property
    def drawn(self) -> int:
        """How many pictures came."""

    @property
    def failures(self) -> list[str]:
        """When and why a request failed."""


@dataclass
class Counts:
    """Counted here."""

    drawn: int = 0
    failures: list[str] = field(default_factory=list)


class PodCounts:
    """Counted in a pod, and read from its log until it is gone."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._log = lambda: kubectl("logs", POD, "--namespace", namespace)
        self._last: str | None = None

    def end(self) -> None:
        """Keep what the log says now."""
        self._last = self._log()

    @property
    def drawn(self) -> int:
        """See `Load`."""
        return self._lines().count("drawn")

    @property
    def failures(self) -> list[str]:
        """See `Load`."""
        return [line.removeprefix("failed ") for line in self._lines() if line != "drawn"]

    def _lines(self) -> list[str]:
        return (self._log() if self._last is None else self._last).splitlines()


@contextmanager
def load_from_here(url: str, prompts: Sequence[str], clients: int) -> Iterator[Load]:
    """Ask from this machine, which must reach the Service's address."""
    load, stop = Counts(), threading.Event()

    def ask(client: int) -> None:
        asked = 0
        while not stop.is_set():
            try:
                list(generate(url, prompts[asked % len(prompts)], seed=client, timeout_seconds=60))
                load.drawn += 1
            except ServerError as error:
                load.failures.append(f"{time.strftime('%X')} {error}")
            asked += 1
            stop.wait(PAUSE_SECONDS)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for each in threads:
        each.start()
    try:
        yield load
    finally:
        stop.set()
        for each in threads:
            each.join()


@contextmanager
def load_from_a_pod(kubectl: Kubectl, namespace: str, image: str, url: str, prompts: Sequence[str], clients: int) -> Iterator[Load]:
    """Ask from a pod in the cluster: a forwarded port leads to one pod alone, and ends with it."""
    kubectl.apply(_asking_pod(image, url, prompts, clients), namespace=namespace)
    counts = PodCounts(kubectl, namespace)
    try:
        kubectl.wait("condition=Ready", f"pod/{POD}", namespace=namespace, seconds=300)
        yield counts
        counts.end()
    finally:
        kubectl("delete", "pod", POD, "--namespace", namespace)


def _asking_pod(image: str, url: str, prompts: Sequence[str], clients: int) -> Manifest:
    script = (Path(__file__).parent / "asking.py").read_text(encoding="utf-8")
    asking = {"name": POD, "image": image, "command": ["python3", "-c", script, url, str(clients), *prompts], "securityContext": RESTRICTED}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [asking],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}
