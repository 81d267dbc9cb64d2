"""What a team does with the operator: applies its deployment, waits, draws, changes its mind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import yaml

from diffusion_operator.manifests.labels import DEPLOYMENT
from engine_runtime.client import generate
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.processes import ClusterError, wait_until
from tests.e2e.digits.installation import EXAMPLE, MODELS, PLACE, SYSTEM
from tests.e2e.digits.load import Load, load_from_a_pod, load_from_here

PROMPTS = ("a red digit seven", "a blue digit three", "a green digit one")
BUILD_SECONDS = PLACE.build_seconds


@dataclass(frozen=True)
class Team:
    """One namespace, in which `digits` is served."""

    kubectl: Kubectl
    namespace: str

    def get(self, kind: str, name: str = "digits") -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.read(kind, self.namespace, name)
        return found

    def status(self, kind: str, name: str = "digits") -> dict[str, Any]:
        """What the operator has said of an object; empty where it has not looked yet."""
        found: dict[str, Any] = self.get(kind, name).get("status", {})
        return found

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kubectl.read(kind, self.namespace, selector=selector)["items"]
        return found

    def apply(self, deployment: dict[str, Any]) -> None:
        self.kubectl.apply(deployment, namespace=self.namespace)

    def apply_example(self) -> None:
        """Apply `examples/digits.yaml` as it is, by the command that the chart names after its installation."""
        self.kubectl("apply", "--filename", EXAMPLE, "--namespace", self.namespace)

    def delete(self, *arguments: str) -> None:
        self.kubectl("delete", *arguments, "--namespace", self.namespace, "--timeout=240s")

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.kubectl("patch", kind, name, "--namespace", self.namespace, "--type=merge", f"--patch={json.dumps(patch)}")

    def evict(self, pod: str) -> None:
        """Ask for a pod's end as `kubectl drain` does."""
        metadata = {"name": pod, "namespace": self.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "--filename", "-", input=json.dumps(eviction))

    def pods(self, name: str = "digits") -> list[dict[str, Any]]:
        """The serving pods of a deployment that are not about to end."""
        pods = self.items("pods", f"{DEPLOYMENT}={name}")
        return [each for each in pods if "deletionTimestamp" not in each["metadata"]]

    def pod_names(self, name: str = "digits") -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods(name)}

    def look_again(self, name: str = "digits") -> None:
        """Change what no pod sees, and wait until the operator has looked at everything again."""
        seconds = self.get("dd", name)["spec"]["rollout"].get("progressDeadlineSeconds", 3600)
        self.patch("dd", name, {"spec": {"rollout": {"progressDeadlineSeconds": seconds + 1}}})
        self.wait_ready(name)

    def condition(self, kind: str, name: str, type: str = "Ready") -> dict[str, Any]:
        """A condition; empty where there is none yet."""
        conditions = self.status(kind, name).get("conditions", [])
        return next((each for each in conditions if each["type"] == type), {})

    def wait_for_reason(self, kind: str, name: str, reason: str, type: str = "Ready", seconds: float = 120) -> dict[str, Any]:
        """Wait for a condition's reason, and return the condition."""
        self.wait(f"{type} of {name} to say {reason}", lambda: self.condition(kind, name, type).get("reason") == reason, seconds)
        return self.condition(kind, name, type)

    def wait_ready(self, name: str = "digits", seconds: float = BUILD_SECONDS) -> None:
        """Wait until the newest spec is what is served, and nothing else has pods any more."""

        def is_done() -> bool:
            deployment = self.get("dd", name)
            status = deployment.get("status", {})
            reasons = {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", [])}
            is_seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
            return is_seen and reasons.get("Ready") == ("True", "Serving") and reasons.get("Progressing") == ("False", "RolloutComplete")

        self.wait(f"{name} to be served", is_done, seconds)

    def wait(self, what: str, probe: Callable[[], bool], seconds: float) -> None:
        try:
            wait_until(what, probe, seconds)
        except ClusterError as error:
            raise AssertionError("\n".join([str(error), *self._told()])) from None

    def address(self, name: str = "digits") -> str:
        """Host and gRPC port of the Service, which this machine reaches where the cluster is its own."""
        return f"{self.get('service', name)['spec']['clusterIP']}:{self._port(name, 'grpc')}"

    def forwarded(self, name: str = "digits") -> AbstractContextManager[str]:
        """The Service's gRPC port, forwarded to this machine by `kubectl port-forward`, as a user would."""
        return self.kubectl.forwarded(f"service/{name}", self._port(name, "grpc"), self.namespace)

    def draw(self, prompt: str, seed: int = 0) -> bytes:
        """A picture, through the Service."""
        with nullcontext(self.address()) if PLACE.is_own else self.forwarded() as url:
            return list(generate(url, prompt, seed=seed, timeout_seconds=60))[-1].data

    def load(self, clients: int = 2) -> AbstractContextManager[Load]:
        """Ask for pictures the whole time, by so many clients at once."""
        if PLACE.is_own:
            return load_from_here(self.address(), PROMPTS, clients)
        url = f"http://digits.{self.namespace}:{self._port('digits', 'http')}"
        return load_from_a_pod(self.kubectl, self.namespace, PLACE.images.name("builder"), url, PROMPTS, clients)

    def _port(self, service: str, name: str) -> int:
        return next(int(port["port"]) for port in self.get("service", service)["spec"]["ports"] if port["name"] == name)

    def _told(self) -> list[str]:
        scope = ("--namespace", self.namespace)
        return [
            self.kubectl.run("get", "dd,de,job,deployment,pod,event", *scope).stdout,
            self.kubectl.run("get", "dd,de", *scope, "--output", "jsonpath={.items[*].status}").stdout,
            self.kubectl.run("logs", "--namespace", SYSTEM, "deployment/diffusion-operator", "--tail=40").stdout,
        ]


def digits(name: str = "digits", **optimization: Any) -> dict[str, Any]:
    """`examples/digits.yaml`, with the checkpoint on a claim, and one recipe and few samples so that the build takes half a minute."""
    deployment: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    deployment["metadata"]["name"] = name
    spec = deployment["spec"]
    spec["model"]["uri"] = f"pvc://{MODELS}/digits-klein"
    quick = {"quantization": {"format": "None"}, "stepCache": {"policy": "None"}, "calibration": {"samples": 8}}
    spec["optimization"].update({**quick, **optimization})
    spec["rollout"] = {"maxSurge": 1, "maxUnavailable": 0}
    return deployment


def changed(deployment: dict[str, Any], **serving: Any) -> dict[str, Any]:
    """The deployment with other serving settings, which need no other engine."""
    copied = copy.deepcopy(deployment)
    copied["spec"]["serving"].update(serving)
    return copied
