"""The whole operator where others disturb it: objects are taken, held or changed, requests refused, events lost."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from diffusion_api.conditions import Reason
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import Served
from diffusion_operator.cluster.errors import RefusedError, UnavailableError
from diffusion_operator.cluster.watching import Watch
from diffusion_operator.manifests.labels import DEPLOYMENT, MANAGED_BY, MANAGER, managed_labels
from diffusion_operator.observing.objects import label
from diffusion_operator.reconciling.keys import Controller, Key
from tests.unit.diffusion_operator.fake_cluster import TIME, FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, condition, deployment, reference, running, said, served, settled
from tests.unit.diffusion_operator.scenes import NOW, RESULT

KLEIN = reference("DiffusionDeployment", "klein")


def test_drift_is_undone():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            state = cluster.state()
            service = reference("Service", "klein", "v1")
            cluster.edit(service, spec={"selector": {"app": "other"}, "ports": []})
            await settled(operator)
            cluster.remove(reference("PodDisruptionBudget", "klein", "policy/v1"))
            await settled(operator)
            return state, cluster.state()

    before, after = asyncio.run(scenario())
    assert before == after


def test_a_serving_deployment_gets_its_label_back_and_keeps_every_pod():
    async def scenario():
        cluster, replicas = FakeCluster(), []
        cluster.put(deployment(autoscaling={"minReplicas": 3, "maxReplicas": 3}))
        async with running(cluster) as operator:
            await served(operator, cluster)
            cluster.check = lambda manifest: replicas.append(manifest["spec"]["replicas"]) if manifest["kind"] == "Deployment" else None
            ((ref, body),) = cluster.of_kind("Deployment")
            labels = {name: value for name, value in body["metadata"]["labels"].items() if name != MANAGED_BY}
            cluster.edit(ref, metadata={**body["metadata"], "labels": labels})
            assert operator.store.get(kinds.SERVING, NAMESPACE, ref.name) is None
            await served(operator, cluster)
            await operator.resync()
            await settled(operator)
        return cluster, replicas

    cluster, replicas = asyncio.run(scenario())
    assert cluster.one("Deployment")["metadata"]["labels"][MANAGED_BY] == MANAGER
    assert replicas == [3]
    assert cluster.objects[KLEIN]["status"]["readyReplicas"] == 3


def test_a_job_that_a_finalizer_holds_is_deleted_once_and_followed_when_it_is_gone():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await settled(operator)
            job = cluster.one("Job")
            end = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
            cluster.put({**job, "status": end, "metadata": {**job["metadata"], "finalizers": ["example.com/audit"]}})
            await settled(operator)
            await operator.resync()
            await settled(operator)
            held, deletions = cluster.one("Job"), cluster.calls.count(("delete", "Job"))
            cluster.remove(reference("Job", job["metadata"]["name"], "batch/v1"))
            await settled(operator)
        return job, held, deletions, cluster.one("Job")

    job, held, deletions, following = asyncio.run(scenario())
    assert held["metadata"]["uid"] == job["metadata"]["uid"]
    assert held["metadata"]["deletionTimestamp"]
    assert deletions == 1
    assert following["metadata"]["uid"] != job["metadata"]["uid"]


def test_an_object_of_somebody_else_is_not_taken():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "klein", "namespace": NAMESPACE},
                "spec": {"selector": {"app": "shop"}},
            }
            | {"manager": "user"}
        )
        cluster.put(deployment())
        async with running(cluster) as operator:
            while "ApplyRefused" not in str(cluster.objects[KLEIN].get("status")):
                cluster.run_jobs()
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not operator.controllers["diffusiondeployment"].queue.is_quiet
        return cluster

    cluster = asyncio.run(scenario())
    assert cluster.objects[reference("Service", "klein", "v1")]["spec"] == {"selector": {"app": "shop"}}
    assert said(cluster.objects[KLEIN]) == ("False", "ApplyRefused")
    assert condition(cluster.objects[KLEIN], "Ready")["message"].startswith("Service klein is there already")


def test_an_engine_and_a_deployment_of_one_name_do_not_disturb_each_other():
    async def scenario():
        cluster = FakeCluster()
        cluster.put({**deployment(shapes=[{"width": 512, "height": 512}]), "kind": "DiffusionEngine"})
        async with running(cluster) as operator:
            await settled(operator)
            cluster.put(deployment())
            await served(operator, cluster)
        return cluster

    cluster = asyncio.run(scenario())
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")
    assert said(cluster.objects[reference("DiffusionEngine", "klein")]) == ("True", "EngineReady")


def test_a_child_that_another_owner_keeps_is_told_after_a_while():
    async def scenario():
        cluster, now = FakeCluster(), [NOW]
        owner = {
            "apiVersion": "diffusionoperator.io/v1alpha1",
            "kind": "DiffusionEngine",
            "name": "klein",
            "uid": "old",
            "controller": True,
        }
        metadata = {"name": "klein", "namespace": NAMESPACE, "labels": managed_labels(), "ownerReferences": [owner]}
        cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}})
        cluster.put(deployment())
        async with running(cluster, now=lambda: now[0]) as operator:
            key = Key(Controller.DEPLOYMENT, NAMESPACE, "klein")
            while operator.controllers["diffusiondeployment"].queue.failures(key) < 3:
                cluster.run_jobs()
                await asyncio.sleep(0)
            early = cluster.objects[KLEIN].get("status")
            now[0] += timedelta(minutes=2)
            while "ApplyRefused" not in str(cluster.objects[KLEIN].get("status")):
                await asyncio.sleep(0)
            told = cluster.objects[KLEIN]
            cluster.remove(reference("Service", "klein", "v1"))
            await served(operator, cluster)
        return early, told, cluster.objects[KLEIN]

    early, told, healed = asyncio.run(scenario())
    assert "ApplyRefused" not in str(early)
    assert condition(told, "Ready")["message"].startswith("Service klein belongs to another owner, DiffusionEngine klein")
    assert said(healed) == ("True", "Serving")


def test_a_refusal_is_said_and_goes_when_it_ends():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())

        def no_jobs(manifest):
            if manifest["kind"] == "Job":
                raise RefusedError("exceeded quota: gpus")

        cluster.check = no_jobs
        async with running(cluster) as operator:
            while "status" not in cluster.objects[KLEIN] or said(cluster.objects[KLEIN])[1] != "EngineBuildFailed":
                await asyncio.sleep(0)
                if any("exceeded quota" in str(body.get("status")) for _, body in cluster.of_kind("DiffusionEngine")):
                    break
            refused = cluster.one("DiffusionEngine")
            cluster.check = lambda manifest: None
            await served(operator, cluster)
        return refused, cluster.objects[KLEIN]

    refused, klein = asyncio.run(scenario())
    assert said(refused) == ("False", Reason.APPLY_REFUSED)
    assert condition(refused, "Ready")["message"].startswith("the API server refused: exceeded quota")
    assert said(klein) == ("True", "Serving")


def test_a_kubelet_that_cannot_be_reached_keeps_no_build_from_being_told():
    async def scenario():
        cluster = FakeCluster()
        cluster.log_error = UnavailableError("dial tcp 10.0.0.7:10250: i/o timeout")
        cluster.put(deployment())
        async with running(cluster) as operator:
            await settled(operator)
            cluster.start_jobs()
            await settled(operator)
            building = cluster.one("DiffusionEngine")
            message = {"event": "result", "succeeded": False, "exitCode": 65, "message": "the checkpoint misses vae/"}
            cluster.run_jobs(message, exit_code=65)
            await settled(operator)
        return building, cluster.one("DiffusionEngine")

    building, failed = asyncio.run(scenario())
    assert said(building) == ("False", "EngineBuilding")
    assert said(failed) == ("False", "EngineBuildFailed")
    assert "misses vae/" in condition(failed, "Ready")["message"]


NO_SECRET = 'MountVolume.SetUp failed for volume "credentials" : secret "hub-token" not found'
SCHEDULED = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": TIME}]}


def failed_mount(message):
    return {"reason": "FailedMount", "message": message, "lastTimestamp": TIME}


@pytest.mark.parametrize(("first", "kind"), [("start_jobs", "DiffusionEngine"), ("start_deployments", "DiffusionDeployment")])
def test_a_volume_that_cannot_be_mounted_is_named_without_another_event(first, kind, monkeypatch):
    monkeypatch.setattr("diffusion_operator.reconciling.mounts.PATIENCE_SECONDS", 0.001)
    monkeypatch.setattr("diffusion_operator.reconciling.mounts.LEAST_SECONDS", 0.001)

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster, now=lambda: NOW + timedelta(minutes=1)) as operator:
            await settled(operator)
            if kind == "DiffusionDeployment":
                cluster.run_jobs()
                await settled(operator)
            getattr(cluster, first)(**SCHEDULED)
            await settled(operator)
            before = said(cluster.one(kind))
            pods = [ref.name for ref, body in cluster.of_kind("Pod") if body["status"]["phase"] == "Pending"]
            cluster.told = {name: [failed_mount(NO_SECRET)] for name in pods}
            while said(cluster.one(kind)) == before:
                await asyncio.sleep(0)
            return before, cluster.one(kind)

    before, told = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert before[1] in ("EnginePending", "PodsNotReady")
    assert said(told) == ("False", "VolumeUnavailable")
    assert 'secret "hub-token" not found' in condition(told, "Ready")["message"]


def test_events_are_not_read_of_pods_that_start_in_time():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster, now=lambda: NOW + timedelta(seconds=29)) as operator:
            await settled(operator)
            cluster.start_jobs(**SCHEDULED)
            await served(operator, cluster)
        return cluster.calls

    assert "events_about" not in {call for call, _ in asyncio.run(scenario())}


def test_a_result_that_its_log_alone_can_tell_is_waited_for():
    async def scenario():
        cluster = FakeCluster()
        cluster.log_error = UnavailableError("dial tcp 10.0.0.7:10250: i/o timeout")
        cluster.put(deployment())
        async with running(cluster) as operator:
            await settled(operator)
            cluster.run_jobs({})
            while not operator.controllers["diffusionengine"].queue.failures(engine_key(cluster)):
                await asyncio.sleep(0)
            waiting = cluster.one("DiffusionEngine")
            ((pod, _),) = cluster.of_kind("Pod")
            cluster.logs = {pod.name: json.dumps({"event": "result", "succeeded": True, "result": RESULT.to_wire()})}
            cluster.log_error = None
            await settled(operator)
        return waiting, cluster.one("DiffusionEngine")

    waiting, ready = asyncio.run(scenario())
    assert said(waiting)[1] != "EngineBuildFailed"
    assert said(ready) == ("True", "EngineReady")


def engine_key(cluster):
    return Key(Controller.ENGINE, NAMESPACE, cluster.one("DiffusionEngine")["metadata"]["name"])


def test_a_job_that_is_seen_to_end_before_its_pod_has_its_result():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await settled(operator)
            job = cluster.one("Job")
            cluster.deaf = True
            cluster.run_jobs()
            cluster.deaf = False
            ended = cluster.one("Job")
            operator.store.put(kinds.JOB, ended)
            await settled(operator)
            assert job["metadata"]["uid"] == ended["metadata"]["uid"]
        return cluster.one("DiffusionEngine"), [event["reason"] for _, event in cluster.of_kind("Event")]

    engine, reasons = asyncio.run(scenario())
    assert said(engine) == ("True", "EngineReady")
    assert "EngineBuildFailed" not in reasons


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_deleted_while_a_watch_was_broken_is_missed_when_it_is_back(fails, monkeypatch):
    monkeypatch.setattr("diffusion_operator.application.RELIST_SECONDS", 0)

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        cluster.put(deployment("other"))
        async with running(cluster) as operator:
            await served(operator, cluster)
            pods = [ref for ref, body in cluster.of_kind("Pod") if label(body, DEPLOYMENT) == "klein"]
            cluster.deaf = True
            for ref in pods:
                cluster.remove(ref)
            cluster.deaf = False
            await settled(operator)
            unseen = cluster.objects[KLEIN]["status"]["readyReplicas"]
            listed = cluster.list

            async def failing(*arguments):
                cluster.list = listed
                raise UnavailableError("the server is away")

            cluster.list = failing if fails else listed
            relist = asyncio.create_task(operator.relist_forever())
            watch = Watch(None, operator.store, (), operator.relisted)
            for _, body in cluster.of_kind("Pod"):
                watch.take(kinds.POD, {"type": None, "object": body})
            while cluster.objects[KLEIN]["status"]["readyReplicas"]:
                await asyncio.sleep(0)
            relist.cancel()
        return unseen, cluster.calls.count(("list", "Pod"))

    unseen, listings = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert unseen == 1
    assert listings <= 4, "one listing for all that a watch tells"


def test_lost_events_are_healed_by_a_resync():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            state = cluster.state()
            cluster.deaf = True
            cluster.remove(reference("Service", "klein", "v1"))
            cluster.edit(KLEIN, spec=deployment(autoscaling={"minReplicas": 3, "maxReplicas": 3})["spec"])
            await settled(operator)
            assert reference("Service", "klein", "v1") not in cluster.objects
            cluster.deaf = False
            await operator.resync()
            await served(operator, cluster)
        return state, cluster

    state, cluster = asyncio.run(scenario())
    assert reference("Service", "klein", "v1") in cluster.objects
    assert cluster.objects[KLEIN]["status"]["readyReplicas"] == 3
    assert cluster.state().keys() > state.keys()


def test_kinds_that_may_not_be_listed_are_done_without():
    async def scenario():
        cluster = FakeCluster()
        cluster.served_now = Served(frozenset({kinds.POD_MONITOR}))
        cluster.put(deployment())
        listed = cluster.list

        async def forbidden(kind, namespace, selector=""):
            if kind is kinds.POD_MONITOR:
                raise RefusedError("podmonitors is forbidden")
            return await listed(kind, namespace, selector)

        cluster.list = forbidden
        async with running(cluster) as operator:
            await served(operator, cluster)
        return cluster

    cluster = asyncio.run(scenario())
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")
    assert not list(cluster.of_kind("PodMonitor"))
