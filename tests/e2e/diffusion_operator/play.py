"""Plays the parts of the kubelet and of Kubernetes' controllers, of which none runs here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.processes import wait_until
from tests.unit.diffusion_operator.scenes import RESULT

TIME = "2026-08-01T12:00:00Z"
SECONDS = 30
RESULT_LINE = {"event": "result", "succeeded": True, "result": RESULT.to_wire()}


@dataclass(frozen=True)
class Play:
    """One namespace."""

    kubectl: Kubectl
    namespace: str

    def items(self, kind: str) -> list[dict[str, Any]]:
        return self.kubectl.read(kind, self.namespace)["items"]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.items(kind)
        return found

    def wait(self, what: str, probe: Callable[[], Any]) -> None:
        def tried() -> bool:
            try:
                return bool(probe())
            except (KeyError, ValueError, StopIteration):
                return False  # What it looks at is not there yet.

        wait_until(what, tried, SECONDS)

    def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        self.wait(f"{count} {kind}", lambda: len(self.items(kind)) == count)
        return self.items(kind)

    def said(self, kind: str, type: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(each for each in self.one(kind)["status"]["conditions"] if each["type"] == type)
        return found["status"], found["reason"]

    def status(self, body: dict[str, Any], **status: Any) -> None:
        name = f"{body['kind'].lower()}/{body['metadata']['name']}"
        patch = json.dumps({"status": status})
        self.kubectl("patch", name, "--namespace", self.namespace, "--subresource=status", "--type=merge", f"--patch={patch}")

    def pod(self, owner: dict[str, Any], name: str, **status: Any) -> None:
        """Make a pod of an owner's template, with this status."""
        template = owner["spec"]["template"]
        reference = {name: owner[name] for name in ("apiVersion", "kind")}
        reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
        metadata = {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [reference]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        self.kubectl.apply(pod, namespace=self.namespace)
        self.status(pod, **status)

    def end_job(self, job: dict[str, Any], line: dict[str, Any] | None = None, exit_code: int = 0) -> None:
        name = f"{job['metadata']['name']}-pod"
        message = json.dumps(line or RESULT_LINE)
        end = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message, "finishedAt": TIME}
        container = {"name": "builder", "ready": False, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": end}}
        self.pod(job, name, phase="Failed" if exit_code else "Succeeded", containerStatuses=[container])
        end_type, reason = ("Failed", "PodFailurePolicy") if exit_code else ("Complete", "CompletionsReached")
        # The API server takes an end only after its announcement.
        announced = "FailureTarget" if exit_code else "SuccessCriteriaMet"
        conditions = [
            {"type": each, "status": "True", "reason": reason, "lastTransitionTime": TIME, "lastProbeTime": TIME}
            for each in (announced, end_type)
        ]
        ended = {"failed": 1} if exit_code else {"succeeded": 1, "completionTime": TIME}
        self.status(job, startTime=TIME, conditions=conditions[:1])
        self.status(job, startTime=TIME, conditions=conditions, uncountedTerminatedPods={}, **ended)

    def serve(self, deployment: dict[str, Any]) -> None:
        """Give a Deployment its pods, all ready."""
        for number in range(deployment["spec"]["replicas"]):
            name = f"{deployment['metadata']['name']}-{number}"
            conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": TIME}]
            self.pod(deployment, name, phase="Running", conditions=conditions)

    def drain(self) -> None:
        """Take pods away that no Deployment wants any more."""
        wanted = {each["metadata"]["uid"]: each["spec"]["replicas"] for each in self.items("deployments.apps")}
        for pod in self.items("pods"):
            owner = pod["metadata"]["ownerReferences"][0]
            number = int(pod["metadata"]["name"].rpartition("-")[2]) if owner["kind"] == "Deployment" else -1
            if number >= wanted.get(owner["uid"], 0):
                self.kubectl("delete", "pod", pod["metadata"]["name"], "--namespace", self.namespace, "--grace-period=0", "--force")
