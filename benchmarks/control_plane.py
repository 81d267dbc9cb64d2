"""The operator, a real API server and simulated nodes: how soon many deployments are Ready, and what they cost at rest.

    python -m benchmarks.control_plane [--deployments N] [--engines N] [--idle SECONDS] [--deleted N]

Needs what the tests' cluster needs (Linux, root, Go): see docs/contributing/cluster.md. etcd, API server, controllers and scheduler are
real; nodes with eight B200 each are KWOK's, whose pods are Ready, and whose builders end with a result, as soon as they are scheduled. So
what is measured is the operator and Kubernetes, and no build. Everything shares the machine's cores, the operator included.
"""

from __future__ import annotations

import _thread
import argparse
import json
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, watch
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import ProtocolError

from tests.e2e.cluster import addons
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.lifecycle import held_up
from tests.e2e.cluster.simulated_nodes import start_kwok, stop_kwok
from tests.unit.diffusion_operator.scenes import RESULT

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "flux2-klein-b200.yaml"
GROUP, VERSION, PLURAL = "diffusionoperator.io", "v1alpha1", "diffusiondeployments"
NAMESPACES = 8
"""Engines are shared within a namespace; so are they here."""
CHILDREN = (
    ("apps/v1", "ControllerRevision"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)
BARE = "-bare"
"""What the names of the namespaces end with in which the same objects are made without the operator."""
CLIENTS = 8
DELETE_SECONDS = 1800
GPUS = 8
KUBERAY_SECONDS = 258
"""What KubeRay published for 1,000 RayClusters; not measured here."""
LAST_WORDS = {"event": "result", "succeeded": True, "result": RESULT.to_wire()}


def main() -> None:
    """Print the table."""
    options = _options()
    with (
        held_up() as kubectl,
        _definitions(kubectl),
        _nodes(kubectl, options),
        _namespaces(kubectl),
        _operator(kubectl.kubeconfig) as operator,
    ):
        api = config.new_client_from_config(str(kubectl.kubeconfig))  # type: ignore[no-untyped-call]
        with Watched(api) as watched:
            rows = [*_become_ready(api, watched, operator, options), *_stay_idle(operator, options), *_lose_pods(api, watched, options)]
            if options.bare:
                rows[1:1] = _without_operator(api, options)
        rows.append(("operator's memory at its highest", f"{operator.peak_mib():.0f} MiB", "≤ 300 MiB"))
        _print(rows, options)  # Before all is deleted, which takes minutes too.


Row = tuple[str, str, str]


def _become_ready(api: client.ApiClient, watched: Watched, operator: Operator, options: argparse.Namespace) -> Iterator[Row]:
    objects, example = client.CustomObjectsApi(api), yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    created: dict[str, float] = {}

    def create(number: int) -> None:
        body = _deployment(example, number, options.engines)
        created[body["metadata"]["name"]] = time.monotonic()
        objects.create_namespaced_custom_object(GROUP, VERSION, _namespace(number, options.engines), PLURAL, body)

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(create, range(options.deployments)))
    applied = time.monotonic() - began
    watched.wait("all deployments to be Ready", lambda: len(watched.ready_at) == options.deployments, 1800)
    took = max(watched.ready_at.values()) - began
    waits = [watched.ready_at[name] - created[name] for name in created]
    goal = "≤ 60 s" if options.deployments <= 1000 else "–"
    yield f"all Ready after the first was applied (all applied after {applied:.0f} s)", f"{took:.1f} s", goal
    yield "KubeRay, 1,000 RayClusters (published, another machine)", f"{KUBERAY_SECONDS} s", "–"
    yield "one, from applied to Ready: p50, p99", f"{_quantile(waits, 50):.1f} s, {_quantile(waits, 99):.1f} s", "–"
    low, high = operator.reconcile_seconds(0.5), operator.reconcile_seconds(0.99)
    yield "one reconcile: p50, p99 (bucket's bound)", f"≤ {1000 * low:.0f} ms, ≤ {1000 * high:.0f} ms", "–"
    calls = operator.metric("rest_client_requests_total", but={"method": "PUT"}) / options.deployments
    writes = operator.writes() / options.deployments
    yield "requests of the operator for each deployment (of them writes)", f"{calls:.1f} ({writes:.1f})", "–"
    reconciles = operator.metric("controller_runtime_reconcile_total") / options.deployments
    yield "reconciles for each deployment, its share of engines included", f"{reconciles:.1f}", "–"


def _without_operator(api: client.ApiClient, options: argparse.Namespace) -> Iterator[Row]:
    """Make the objects that serve each deployment once more, by a client that has them ready: what Kubernetes itself takes for them."""
    dynamic, core = DynamicClient(api), client.CoreV1Api(api)  # type: ignore[no-untyped-call]
    kinds = [dynamic.resources.get(api_version=version, kind=kind) for version, kind in CHILDREN]
    objects = [(kind, _copy(body.to_dict())) for kind in kinds for body in kind.get(label_selector=f"{GROUP}/deployment").items]
    objects.sort(key=lambda each: str(each[1]["metadata"]["name"]))
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda each: each[0].create(body=each[1], namespace=each[1]["metadata"]["namespace"]), objects))
    while _running(core) < options.deployments:
        time.sleep(1)
    yield f"the same {len(objects)} objects made by a plain client, until all pods are Ready", f"{time.monotonic() - began:.1f} s", "–"


def _running(core: client.CoreV1Api) -> int:
    """Pods that run in the namespaces without the operator; a simulated pod that runs is Ready."""
    found = core.list_pod_for_all_namespaces(field_selector="status.phase=Running").items
    return sum(pod.metadata is not None and str(pod.metadata.namespace).endswith(BARE) for pod in found)


def _copy(body: dict[str, Any]) -> dict[str, Any]:
    """The object as somebody would write it, for another namespace."""
    metadata = body["metadata"]
    kept = {"name": metadata["name"], "namespace": metadata["namespace"] + BARE, "labels": metadata["labels"]}
    spec = {name: value for name, value in body.get("spec", {}).items() if name not in ("clusterIP", "clusterIPs")}
    data: dict[str, Any] = {name: body[name] for name in ("data", "revision") if name in body}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept, **({"spec": spec} if spec else {}), **data}


def _stay_idle(operator: Operator, options: argparse.Namespace) -> Iterator[Row]:
    if not options.idle:
        return
    operator.wait_quiet()
    writes, began = operator.writes(), operator.cpu_seconds()
    time.sleep(options.idle)
    yield f"writes in {options.idle} s without a change, beside the Lease", f"{operator.writes() - writes:.0f}", "0"
    yield "the operator's CPU time meanwhile", f"{operator.cpu_seconds() - began:.1f} s", "–"


def _lose_pods(api: client.ApiClient, watched: Watched, options: argparse.Namespace) -> Iterator[Row]:
    """Delete pods one after the other; the status is true again when it counts the pod that came in its place."""
    if not options.deleted:
        return
    core: Any = client.CoreV1Api(api)
    pods = core.list_pod_for_all_namespaces(label_selector=f"{GROUP}/deployment").items
    behind, whole = [], []
    for pod in pods[: options.deleted]:
        name, began = pod.metadata.labels[f"{GROUP}/deployment"], time.monotonic()
        core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace)
        watched.wait(f"{name} to say that it lost its pod and that it has another", partial(watched.is_ready_again, name, began), 60)
        behind.append(watched.lost_at[name] - began)
        whole.append(watched.ready_at[name] - began)
    yield f"a pod deleted, until its status says so: p50, p99 of {len(behind)}", _two(behind), "p99 ≤ 1 s"
    yield "until the pod in its place is counted: p50, p99", _two(whole), "p99 ≤ 1 s"


class Watched:
    """Since when each deployment is Ready or not, by a watch of our own."""

    def __init__(self, api: client.ApiClient) -> None:
        self.ready_at: dict[str, float] = {}
        self.lost_at: dict[str, float] = {}
        self._objects = client.CustomObjectsApi(api)
        self._watch: Any = watch.Watch()  # type: ignore[no-untyped-call]
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._watch.stop()

    def is_ready_again(self, name: str, began: float) -> bool:
        """Whether it was lost since, and is Ready again."""
        return began < self.lost_at.get(name, 0.0) < self.ready_at[name]

    def wait(self, what: str, probe: Callable[[], bool], seconds: float) -> None:
        """Wait for something to become true of the times; end the benchmark where it does not."""
        with self._changed:
            if not self._changed.wait_for(probe, seconds):
                raise SystemExit(f"waited {seconds} s for {what}; Ready are {len(self.ready_at)}")

    def _follow(self) -> None:
        # The server ends the stream with itself; while anyone still waits, `wait` says that nothing came.
        with suppress(ProtocolError):
            self._follow_until_the_end()

    def _follow_until_the_end(self) -> None:
        for event in self._watch.stream(self._objects.list_cluster_custom_object, GROUP, VERSION, PLURAL):
            body, now = event["object"], time.monotonic()
            name, status = body["metadata"]["name"], body.get("status", {})
            ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
            counted = ready and status.get("readyReplicas") == 1
            with self._changed:
                if counted and self.ready_at.get(name, 0.0) <= self.lost_at.get(name, 0.0):
                    self.ready_at[name] = now
                elif not counted and name in self.ready_at and self.ready_at[name] > self.lost_at.get(name, 0.0):
                    self.lost_at[name] = now
                self._changed.notify_all()


@dataclass
class Operator:
    """The operator as a process of this machine."""

    process: subprocess.Popen[bytes]
    metrics_port: int

    def metric(self, name: str, but: Mapping[str, str] | None = None, **labels: str) -> float:
        """Sum of a metric over the series with these labels and without the others."""
        total = 0.0
        for found, value in self._read(name):
            unwanted = any(found.get(key) == text for key, text in (but or {}).items())
            total += value if labels.items() <= found.items() and not unwanted else 0.0
        return total

    def leads(self) -> bool:
        """Whether it holds the Lease; not while it starts."""
        with suppress(OSError):
            return self.metric("leader_election_master_status") == 1
        return False

    def writes(self) -> float:
        """Requests that write objects; PUT renews the Lease and nothing else."""
        return sum(self.metric("rest_client_requests_total", method=method) for method in ("POST", "PATCH", "DELETE"))

    def reconcile_seconds(self, share: float) -> float:
        """The histogram's bound that this share of the reconciles stayed below."""
        buckets: dict[float, float] = {}
        for labels, value in self._read("controller_runtime_reconcile_time_seconds_bucket"):
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
        return next(bound for bound, count in sorted(buckets.items()) if count >= share * buckets[math.inf])

    def wait_quiet(self, seconds: float = 10) -> None:
        """Wait until nothing was written for a while."""
        writes, since = self.writes(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.5)
            if (now := self.writes()) != writes:
                writes, since = now, time.monotonic()

    def peak_mib(self) -> float:
        """Most resident memory that the process had."""
        (line,) = [line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    def cpu_seconds(self) -> float:
        """Processor time since its start, of user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _read(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        for match in re.finditer(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
            yield dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")), float(match[2])


@contextmanager
def _operator(kubeconfig: Path) -> Iterator[Operator]:
    health, metrics = _free_ports()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.yaml"
        settings.write_text("{}")
        flags = [
            f"--kubeconfig={kubeconfig}",
            f"--settings={settings}",
            "--lease-namespace=default",
            "--bind-address=127.0.0.1",
        ]
        command = [sys.executable, "-m", "diffusion_operator", *flags, f"--health-port={health}", f"--metrics-port={metrics}"]
        log_file = Path(folder) / "operator.log"
        log = log_file.open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        threading.Thread(target=_end_with, args=(process, log_file), daemon=True).start()
        operator = Operator(process, metrics)
        try:
            while not operator.leads():
                time.sleep(0.1)
            yield operator
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            log.close()


def _end_with(process: subprocess.Popen[bytes], log_file: Path) -> None:
    """End the benchmark where the operator ends by itself: what is waited for does not come any more."""
    if code := process.wait():
        print(f"{log_file.read_text()[-2000:]}\nthe operator ended with exit code {code}", file=sys.stderr)
        _thread.interrupt_main()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


@contextmanager
def _definitions(kubectl: Kubectl) -> Iterator[None]:
    crds = ["--filename", str(ROOT / "crds")]
    kubectl("apply", "--server-side", *crds)
    kubectl("wait", "--for=condition=Established", *crds)
    try:
        yield
    finally:
        kubectl("delete", "--ignore-not-found", *crds)


@contextmanager
def _nodes(kubectl: Kubectl, options: argparse.Namespace) -> Iterator[None]:
    # Room for all pods and for as many builders as there are engines.
    pods = options.deployments * (2 if options.bare else 1) + options.engines
    start_kwok(kubectl, math.ceil(pods / GPUS), gpus=GPUS, last_words=json.dumps(LAST_WORDS))
    try:
        yield
    finally:
        stop_kwok(kubectl)


@contextmanager
def _namespaces(kubectl: Kubectl) -> Iterator[None]:
    addons.renew_volumes(kubectl)
    names = [f"bench-{number}{suffix}" for number in range(NAMESPACES) for suffix in ("", BARE)]
    kubectl.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names))
    kubectl.apply(*(_claim(name) for name in names if name.endswith(BARE)))
    try:
        yield
    finally:
        kubectl("delete", "namespace", *names, f"--timeout={DELETE_SECONDS}s")


def _claim(namespace: str) -> dict[str, Any]:
    """The engine store, which the operator makes for itself."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "diffusion-engine-store", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _namespace(number: int, engines: int) -> str:
    return f"bench-{number % engines % NAMESPACES}"


def _deployment(example: Mapping[str, Any], number: int, engines: int) -> dict[str, Any]:
    """The example under a name of its own; its engine is one of so many, told apart by the seed of calibration."""
    spec = dict(example["spec"])
    optimization = {**spec["optimization"], "calibration": {"samples": 64, "seed": number % engines}}
    spec |= {"optimization": optimization, "model": {**spec["model"], "revision": "0123456789abcdef0123456789abcdef01234567"}}
    return {**example, "metadata": {"name": f"flux2-{number:05}"}, "spec": spec}


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _two(values: list[float]) -> str:
    return f"{1000 * _quantile(values, 50):.0f} ms, {1000 * _quantile(values, 99):.0f} ms"


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    header = f"{options.deployments} deployments of {options.engines} engines in {NAMESPACES} namespaces"
    print(f"\n{header}, {os.cpu_count()} cores for everything")
    width = max(len(name) for name, _, _ in rows)
    print(f"{'':{width}}  {'measured':>22}  goal")
    for name, value, goal in rows:
        print(f"{name:{width}}  {value:>22}  {goal}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--idle", type=int, default=300, metavar="SECONDS", help="how long to watch for writes; 0 is not at all")
    parser.add_argument("--bare", action=argparse.BooleanOptionalAction, default=True, help="make the same objects without the operator")
    parser.add_argument("--deleted", type=int, default=100, metavar="N", help="pods to delete, one after the other")
    return parser.parse_args()


if __name__ == "__main__":
    main()
