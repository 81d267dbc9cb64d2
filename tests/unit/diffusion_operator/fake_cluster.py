"""A cluster in memory: keeps objects as an API server does, and lets Jobs and Deployments run when it is told to."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import Listing, Served
from diffusion_operator.cluster.errors import ClusterError, MissingError, OutdatedError, RefusedError
from diffusion_operator.cluster.kinds import Kind, kind_of
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest, Ref, ref_of
from diffusion_operator.observing.objects import items
from tests.unit.diffusion_operator.scenes import RESULT

WRITES = frozenset({"apply", "apply_status", "delete", "create", "replace", "merge"})
SERVER_SET = ("uid", "creationTimestamp", "resourceVersion", "finalizers", "deletionTimestamp")
TIME = "2026-08-01T12:00:00Z"


class FakeCluster:
    """A `ClusterClient`. What it tells a store, it tells at once; `deaf` stores hear nothing, as when events are lost."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Manifest] = {}
        self.stores: list[ObjectStore] = []
        self.calls: list[tuple[str, str]] = []
        self.served_now = Served(frozenset())
        self.nodes: tuple[Mapping[str, str], ...] | None = ()
        self.logs: dict[str, str] = {}
        self.told: dict[str, list[Manifest]] = {}
        """Events about pods, by the pod's name."""
        self.log_error: ClusterError | None = None
        """What a kubelet that cannot be reached makes of a request for a log."""
        self.deaf = False
        self.check: Callable[[Manifest], None] = lambda manifest: None
        """Admission: may raise."""
        self._version = 0
        self._names = 0

    # The API server.

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> Listing:
        self.calls.append(("list", kind.name))
        found = [
            copy.deepcopy(body)
            for ref, body in self.objects.items()
            if kind_of(ref) is kind and namespace in (None, ref.namespace) and _is_selected(kind, body, selector)
        ]
        return Listing(found, str(self._version))

    async def get(self, ref: Ref) -> Manifest | None:
        self.calls.append(("get", ref.kind))
        return copy.deepcopy(self.objects.get(ref))

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        self.calls.append(("apply", manifest["kind"]))
        self.check(manifest)
        ref = ref_of(manifest)
        before = self.objects.get(ref)
        if before is not None and not force and before.get("manager") == "user":
            raise OutdatedError(f"conflict with user: {ref.kind} {ref.name}")
        if before is not None and _is_immutable(before) and before.get("data") != json.loads(json.dumps(manifest.get("data"))):
            raise RefusedError(f"{ref.kind} {ref.name} is invalid: data: field is immutable")
        server = {name: before["metadata"][name] for name in SERVER_SET if name in before["metadata"]} if before else {}
        body = {**copy.deepcopy(manifest), **({"status": before["status"]} if before and "status" in before else {})}
        body["metadata"] |= server
        return self._stored(body, before)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        self.calls.append(("apply_status", manifest["kind"]))
        before = self.objects.get(ref_of(manifest))
        if before is None:
            raise MissingError("not found")
        if before["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise OutdatedError("another uid")
        return self._stored({**before, "status": json.loads(json.dumps(manifest["status"]))}, before)

    async def delete(self, ref: Ref, uid: str) -> Manifest | None:
        self.calls.append(("delete", ref.kind))
        before = self.objects.get(ref)
        if before is None or before["metadata"]["uid"] != uid:
            return None
        if before["metadata"].get("finalizers"):
            return self._stored({**before, "metadata": {**before["metadata"], "deletionTimestamp": TIME}}, before)
        self.remove(ref)
        return None

    async def create(self, manifest: Manifest) -> Manifest:
        self.calls.append(("create", manifest["kind"]))
        if ref_of(manifest) in self.objects:
            raise OutdatedError("already exists")
        return self._stored(copy.deepcopy(manifest), None)

    async def replace(self, manifest: Manifest) -> Manifest:
        self.calls.append(("replace", manifest["kind"]))
        before = self.objects.get(ref_of(manifest))
        if before is None:
            raise MissingError("not found")
        if before["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise OutdatedError("changed meanwhile")
        return self._stored(copy.deepcopy(manifest), before)

    async def merge(self, ref: Ref, patch: Mapping[str, object]) -> Manifest:
        self.calls.append(("merge", ref.kind))
        before = self.objects.get(ref)
        if before is None:
            raise MissingError("not found")
        return self._stored({**before, **copy.deepcopy(dict(patch))}, before)

    async def log_tail(self, pod: Ref, container: str, lines: int, limit_bytes: int) -> str:
        self.calls.append(("log_tail", pod.name))
        if self.log_error is not None:
            raise self.log_error
        return self.logs.get(pod.name, "")

    async def events_about(self, ref: Ref, uid: str) -> Sequence[Manifest]:
        self.calls.append(("events_about", ref.name))
        return self.told.get(ref.name, ())

    async def node_labels(self) -> tuple[Mapping[str, str], ...] | None:
        self.calls.append(("node_labels", ""))
        return self.nodes

    async def served(self) -> Served:
        self.calls.append(("served", ""))
        return self.served_now

    # What tests do to it.

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] in WRITES]

    def copied(self) -> FakeCluster:
        """Another cluster with the same objects."""
        other = FakeCluster()
        other.objects = copy.deepcopy(self.objects)
        other._version, other._names = self._version, self._names
        return other

    def put(self, manifest: Manifest) -> Manifest:
        """Write as somebody else than the operator."""
        return self._stored(copy.deepcopy(manifest), self.objects.get(ref_of(manifest)))

    def edit(self, ref: Ref, **fields: Any) -> Manifest:
        return self.put({**self.objects[ref], **fields})

    def remove(self, ref: Ref) -> None:
        """Delete an object, and all that it owns."""
        body = self.objects.pop(ref)
        self._version += 1
        uid = body["metadata"]["uid"]
        self._tell_gone(body)
        for child in [each for each, owned in self.objects.items() if uid in _owners(owned)]:
            self.remove(child)

    def of_kind(self, name: str) -> Iterator[tuple[Ref, Manifest]]:
        return iter([(ref, copy.deepcopy(body)) for ref, body in sorted(self.objects.items()) if ref.kind == name])

    def one(self, name: str) -> Manifest:
        ((_, body),) = self.of_kind(name)
        return body

    def state(self) -> dict[str, Any]:
        """Everything but versions, uids and events: what must be equal after two ways of getting there."""
        uids = {body["metadata"]["uid"]: str(ref) for ref, body in self.objects.items()}
        kept = {str(ref): _without_versions(body) for ref, body in self.objects.items() if ref.kind not in ("Event", "Lease")}
        text = json.dumps(kept, sort_keys=True)
        for uid, name in uids.items():
            text = text.replace(f'"{uid}"', json.dumps(name))
        return json.loads(text)

    # The kubelet and the controllers of Kubernetes.

    def run_jobs(self, message: Mapping[str, Any] | None = None, exit_code: int = 0) -> None:
        """Let every Job that has not ended end."""
        for ref, job in self.of_kind("Job"):
            if (job.get("status") or {}).get("conditions"):
                continue
            said = {"event": "result", "succeeded": True, "result": RESULT.to_wire()} if message is None else message
            self.put(_pod_of(job, f"{ref.name}-{self._next()}", exit_code, json.dumps(said)))
            status: dict[str, Any] = {"startTime": TIME, "failed" if exit_code else "succeeded": 1}
            end = {
                "type": "Failed" if exit_code else "Complete",
                "status": "True",
                "reason": "PodFailurePolicy",
                "lastTransitionTime": TIME,
            }
            status |= {"conditions": [end]} | ({} if exit_code else {"completionTime": TIME})
            self.edit(ref, status=status)

    def start_jobs(self, **status: Any) -> None:
        """Give every Job a pod that runs."""
        for ref, job in self.of_kind("Job"):
            self.put(_pod(job, f"{ref.name}-{self._next()}", job["spec"]["template"], {"phase": "Running", **status}))

    def start_deployments(self, **status: Any) -> None:
        """Give every Deployment a pod that does not run yet."""
        for ref, body in self.of_kind("Deployment"):
            self.put(_pod(body, f"{ref.name}-{self._next()}", body["spec"]["template"], {"phase": "Pending", **status}))

    def run_deployments(self, broken: frozenset[str] = frozenset()) -> bool:
        """Give each Deployment one pod more or fewer, as it wants, and tell whether anything happened."""
        happened = False
        for ref, deployment in self.of_kind("Deployment"):
            pods = [each for each, pod in self.of_kind("Pod") if deployment["metadata"]["uid"] in _owners(pod)]
            wanted = deployment["spec"]["replicas"]
            if len(pods) < wanted:
                self.put(_serving_pod(deployment, f"{ref.name}-{self._next()}", ready=ref.name not in broken))
            elif len(pods) > wanted:
                self.remove(pods[-1])
            happened = happened or len(pods) != wanted
        return happened

    def _next(self) -> int:
        self._names += 1
        return self._names

    def _stored(self, body: Manifest, before: Manifest | None) -> Manifest:
        metadata = body["metadata"] = dict(body["metadata"])
        if before is not None and _without_versions(before) == _without_versions(body):
            return copy.deepcopy(before)
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        metadata.setdefault("creationTimestamp", f"2026-08-01T12:00:00.{self._version:06}Z")
        if before is None or before.get("spec") != body.get("spec"):
            metadata["generation"] = (before["metadata"].get("generation", 1) if before else 0) + 1
        else:
            metadata["generation"] = before["metadata"].get("generation", 1)
        self.objects[ref_of(body)] = body
        kind = kind_of(ref_of(body))
        if _is_selected(kind, body):
            self._tell(lambda store: store.put(kind, copy.deepcopy(body)), kind)
        elif before is not None and _is_selected(kind, before):
            self._tell_gone(before)
        return copy.deepcopy(body)

    def _tell_gone(self, body: Manifest) -> None:
        """As the API server does where an object is deleted, and where it leaves a watch's selector."""
        gone, kind = copy.deepcopy(body), kind_of(ref_of(body))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(lambda store: store.forget(kind, gone), kind)

    def _tell(self, tell: Callable[[ObjectStore], object], kind: Kind) -> None:
        if kind in kinds.HELD and kind.watched and not self.deaf:
            for store in self.stores:
                tell(store)


def _is_immutable(body: Manifest) -> bool:
    return body.get("immutable") is True or body["kind"] == "ControllerRevision"


def _owners(body: Manifest) -> set[str]:
    return {owner["uid"] for owner in items(body, "metadata", "ownerReferences")}


def _is_selected(kind: Kind, body: Manifest, selector: str = "") -> bool:
    wanted = dict(pair.split("=") for pair in (selector or kind.selector).split(",") if pair)
    return wanted.items() <= (body["metadata"].get("labels") or {}).items()


def _without_versions(body: Manifest) -> Manifest:
    unequal = ("resourceVersion", "generation", "uid", "creationTimestamp")
    return {**body, "metadata": {name: value for name, value in body["metadata"].items() if name not in unequal}}


def _pod_of(job: Manifest, name: str, exit_code: int, message: str) -> Manifest:
    end = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message, "finishedAt": TIME}
    status = {
        "phase": "Failed" if exit_code else "Succeeded",
        "containerStatuses": [{"name": "builder", "ready": False, "state": {"terminated": end}}],
    }
    return _pod(job, name, job["spec"]["template"], status)


def _serving_pod(deployment: Manifest, name: str, *, ready: bool) -> Manifest:
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": TIME}
    container: dict[str, Any] = {
        "name": "triton",
        "ready": ready,
        "state": {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}},
    }
    if not ready:
        container["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error", "message": "no such layer", "finishedAt": TIME}}
    status = {"phase": "Running", "conditions": [condition], "containerStatuses": [container]}
    return _pod(deployment, name, deployment["spec"]["template"], status)


def _pod(owner: Manifest, name: str, template: Manifest, status: Manifest) -> Manifest:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"], "controller": True}
    metadata = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(template["metadata"]["labels"]),
        "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}
