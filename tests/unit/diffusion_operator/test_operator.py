"""The whole operator against a cluster in memory."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import Served
from diffusion_operator.cluster.errors import RefusedError
from tests.unit.diffusion_api.strategies import deployments
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, condition, deployment, reference, running, said, served, settled
from tests.unit.diffusion_operator.scenes import NOW, settings

KLEIN = reference("DiffusionDeployment", "klein")


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


def test_an_autoscaler_makes_room_before_another_comes():
    async def scenario():
        cluster = FakeCluster()
        cluster.served_now = Served(frozenset(), custom_metrics=True)
        cluster.put(deployment(autoscaling={"minReplicas": 1, "maxReplicas": 3}))

        def one_autoscaler(manifest):
            if manifest["kind"] == "ScaledObject" and list(cluster.of_kind("HorizontalPodAutoscaler")):
                raise RefusedError("the workload is managed by the hpa klein already")

        cluster.check = one_autoscaler
        async with running(cluster, settings=settings(scaling={"prometheusUrl": "http://prometheus"})) as operator:
            await served(operator, cluster)
            before = [ref.kind for ref in cluster.objects if ref.kind in ("HorizontalPodAutoscaler", "ScaledObject")]
            cluster.served_now = Served(frozenset({kinds.SCALED_OBJECT}), custom_metrics=True)
            await operator.resync()
            await served(operator, cluster)
        return before, [ref.kind for ref in cluster.objects if ref.kind in ("HorizontalPodAutoscaler", "ScaledObject")]

    assert asyncio.run(scenario()) == (["HorizontalPodAutoscaler"], ["ScaledObject"])


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
