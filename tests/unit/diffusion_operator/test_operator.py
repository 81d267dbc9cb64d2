"""The whole operator against a cluster in memory."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings

from diffusion_api.conditions import Reason
from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import Served
from diffusion_operator.cluster.errors import RefusedError, UnavailableError
from diffusion_operator.manifests.labels import MANAGED_BY, MANAGER
from diffusion_operator.reconciling.keys import Controller, Key
from tests.unit.diffusion_api.strategies import deployments
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, deployment, reference, running, served, settled
from tests.unit.diffusion_operator.scenes import NOW, RESULT

KLEIN = reference("DiffusionDeployment", "klein")


def condition(body, type):
    return next(each for each in body["status"]["conditions"] if each["type"] == type)


def said(body, type="Ready"):
    found = condition(body, type)
    return found["status"], found["reason"]


def test_a_deployment_is_built_and_served():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
        return cluster

    cluster = asyncio.run(scenario())
    status = cluster.objects[KLEIN]["status"]
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")
    assert status["recipe"] == "NVFP4 + BF16, no step cache"
    assert status["readyReplicas"] == 1
    engine = cluster.one("DiffusionEngine")
    assert said(engine) == ("True", "EngineReady")
    assert engine["status"]["users"] == 1
    assert {ref.kind for ref in cluster.objects} >= {
        "Job",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "ControllerRevision",
    }


def test_events_tell_the_story_once():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
        return [event for _, event in cluster.of_kind("Event") if event["regarding"]["kind"] == "DiffusionDeployment"]

    events = asyncio.run(scenario())
    reasons = [event["reason"] for event in events]
    assert set(reasons) >= {"EnginePending", "EngineReady", "RollingOut", "Serving"}
    assert len(reasons) == len(set(reasons))
    assert {event["type"] for event in events if event["reason"] != "PodsNotReady"} == {"Normal"}


def test_a_quiet_cluster_costs_no_write():
    async def scenario():
        cluster = FakeCluster()
        for name in ("klein", "dev"):
            cluster.put(deployment(name))
        async with running(cluster) as operator:
            await served(operator, cluster)
            before = len(cluster.writes)
            await operator.resync()
            await settled(operator)
            quiet = cluster.writes[before:]
        async with running(cluster) as operator:
            before = len(cluster.writes)
            await settled(operator)
            return quiet, cluster.writes[before:]

    assert asyncio.run(scenario()) == ([], [])


def test_two_deployments_of_one_key_share_one_build():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment("klein"))
        cluster.put(deployment("copy", serving={"maxQueueDelayMicroseconds": 5}))
        async with running(cluster) as operator:
            await served(operator, cluster)
        return cluster

    cluster = asyncio.run(scenario())
    assert len(list(cluster.of_kind("Job"))) == 1
    assert cluster.one("DiffusionEngine")["status"]["users"] == 2


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
    assert "Service klein is there already" in condition(cluster.objects[KLEIN], "Ready")["message"]


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
    assert "exceeded quota" in condition(refused, "Ready")["message"]
    assert said(klein) == ("True", "Serving")


def test_an_unreadable_object_is_told_so_and_left_alone():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment(rollout={"strategy": "Sideways"}))
        async with running(cluster) as operator:
            await settled(operator)
            first = cluster.objects[KLEIN]
            writes = len(cluster.writes)
            await operator.resync()
            await settled(operator)
            assert len(cluster.writes) == writes
            cluster.edit(KLEIN, spec=deployment()["spec"])
            await served(operator, cluster)
        return first, cluster.objects[KLEIN]

    bad, good = asyncio.run(scenario())
    assert said(bad) == ("False", "InvalidSpec")
    assert "spec.rollout.strategy" in condition(bad, "Ready")["message"]
    assert said(good) == ("True", "Serving")


def test_a_build_that_fails_says_why_with_its_log():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        message = {"event": "result", "succeeded": False, "exitCode": 65, "message": "the checkpoint misses vae/"}
        async with running(cluster) as operator:
            await settled(operator)
            cluster.logs = {f"{ref.name}-1": "reading\nthe checkpoint misses vae/" for ref, _ in cluster.of_kind("Job")}
            cluster.run_jobs(message, exit_code=65)
            await settled(operator)
            writes = len(cluster.writes)
            await operator.resync()
            await settled(operator)
            assert len(cluster.writes) == writes
        return cluster.one("DiffusionEngine"), cluster.objects[KLEIN]

    engine, klein = asyncio.run(scenario())
    assert engine["status"]["failure"]["exitCode"] == 65
    assert engine["status"]["failure"]["logTail"].startswith("reading")
    assert said(klein) == ("False", "EngineBuildFailed")
    assert "misses vae/" in condition(klein, "Ready")["message"]


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


def test_a_deployment_deleted_during_its_build_leaves_only_the_shared_engine():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await settled(operator)
            cluster.remove(KLEIN)
            await settled(operator)
            cluster.run_jobs()
            await settled(operator)
        return cluster

    cluster = asyncio.run(scenario())
    engine = cluster.one("DiffusionEngine")
    assert engine["status"]["users"] == 0
    assert engine["status"]["unusedSince"]
    assert said(engine) == ("True", "EngineReady")
    assert not list(cluster.of_kind("Deployment"))


def test_a_new_namesake_does_not_inherit_the_old_ones_revisions():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            old = cluster.objects[KLEIN]["metadata"]["uid"]
            cluster.remove(KLEIN)
            cluster.put(deployment())
            await served(operator, cluster)
        return old, cluster

    old, cluster = asyncio.run(scenario())
    owners = {owner["uid"] for body in cluster.objects.values() for owner in body["metadata"].get("ownerReferences", ())}
    assert old not in owners
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")


def test_prompts_of_a_config_map_are_looked_for_and_go_into_the_engine():
    async def scenario():
        cluster = FakeCluster()
        spec = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
        cluster.put(deployment(optimization=spec))
        async with running(cluster) as operator:
            await settled(operator)
            waiting = cluster.objects[KLEIN]
            metadata = {"name": "prompts", "namespace": NAMESPACE}
            cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"prompts.txt": "a cat\n\n a dog \n"}})
            await operator.resync()
            await settled(operator)
        return waiting, cluster.one("DiffusionEngine")

    waiting, engine = asyncio.run(scenario())
    assert said(waiting) == ("False", "PromptsNotFound")
    assert engine["spec"]["optimization"]["calibration"]["prompts"] == ["a cat", "a dog"]


def test_an_engine_of_a_users_own_gets_the_prompts_of_its_config_map_in_its_job_file():
    async def scenario():
        cluster = FakeCluster()
        spec = dict(deployment()["spec"])
        spec["optimization"] = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
        metadata = {"name": "ahead", "namespace": NAMESPACE}
        cluster.put({"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionEngine", "metadata": metadata, "spec": spec})
        async with running(cluster) as operator:
            await settled(operator)
            waiting = cluster.one("DiffusionEngine")
            cluster.put(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "prompts"}, "data": {"prompts.txt": "a cat"}}
            )
            await operator.resync()
            await settled(operator)
        return waiting, next(body for ref, body in cluster.of_kind("ConfigMap") if ref.name != "prompts")

    waiting, config_map = asyncio.run(scenario())
    assert said(waiting) == ("False", "PromptsNotFound")
    assert json.loads(config_map["data"]["job.json"])["optimization"]["calibration"]["prompts"] == ["a cat"]


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


def test_engines_without_users_go_after_their_time_and_their_files_before_them():
    async def scenario():
        cluster, now = FakeCluster(), [NOW]
        cluster.put(deployment())
        async with running(cluster, now=lambda: now[0]) as operator:
            await served(operator, cluster)
            cluster.remove(KLEIN)
            await settled(operator)
            assert cluster.one("DiffusionEngine")["status"]["unusedSince"]
            now[0] += timedelta(days=30)
            await operator.resync()
            await settled(operator)
            assert {ref.name.rpartition("-")[2] for ref, _ in cluster.of_kind("Job")} > {"cleanup"}
            cluster.run_jobs()
            await settled(operator)
        return cluster

    assert not list(asyncio.run(scenario()).of_kind("DiffusionEngine"))


@given(mutation=deployments)
@example(mutation={"spec": {"model": None}})
@example(mutation={"spec": "nonsense"})
@hypothesis_settings(max_examples=60, deadline=None)
def test_after_any_other_spec_the_first_one_brings_back_the_first_state(mutation):
    """However the spec was changed, even past what the API server would refuse: no crash, no hot loop, and a way back."""

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            before = cluster.objects[KLEIN]["status"]
            cluster.edit(KLEIN, spec=mutation["spec"])
            await settled(operator)
            cluster.edit(KLEIN, spec=deployment()["spec"])
            await served(operator, cluster)
            assert operator.metrics.unsettled.collect()[0].samples == []
            return before, cluster.objects[KLEIN]["status"]

    before, after = asyncio.run(scenario())
    assert without_generation(after) == without_generation(before)


def without_generation(status):
    return json.loads(re.sub(r'"observedGeneration": \d+', '"observedGeneration": 0', json.dumps(status)))
