"""An engine whose files are lost is built again, wherever it then lies and whatever was changed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from diffusion_api.prepare_exit import PrepareExit
from diffusion_operator.manifests.controller_revision import template_artifact, template_store
from diffusion_operator.manifests.labels import COMPONENT, ENGINE, MANAGED_BY, MANAGER, REVISION, SERVING
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, deployment, reference, running, served, settled
from tests.unit.diffusion_operator.scenes import RESULT, settings

KLEIN = reference("DiffusionDeployment", "klein")
ELSEWHERE = {"event": "result", "succeeded": True, "result": RESULT.model_copy(update={"artifact": "artifacts/engine-ffff"}).to_wire()}


def miss_files(cluster: FakeCluster, finished: str) -> None:
    """Every serving pod says at a time that its engine's files are gone."""
    end = {"exitCode": int(PrepareExit.FILES_MISSING), "message": "no manifest", "finishedAt": finished}
    status: dict[str, Any] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "prepare-engine", "ready": False, "state": {"terminated": end}}],
    }
    for ref, pod in cluster.of_kind("Pod"):
        if REVISION in pod["metadata"]["labels"]:
            cluster.edit(ref, status=status)


def test_an_engine_whose_prompts_were_changed_meanwhile_is_built_again():
    async def scenario():
        cluster = FakeCluster()
        spec = dict(deployment()["spec"])
        spec["optimization"] = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
        metadata = {"name": "ahead", "namespace": NAMESPACE}
        prompts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "prompts"}}
        cluster.put({**prompts, "data": {"prompts.txt": "a cat"}})
        cluster.put({"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionEngine", "metadata": metadata, "spec": spec})
        async with running(cluster) as operator:
            await settled(operator)
            cluster.run_jobs()
            await settled(operator)
            cluster.put({**prompts, "data": {"prompts.txt": "a dog"}})
            cluster.put(pod_that_misses_files("ahead"))
            await settled(operator)
            return cluster

    cluster = asyncio.run(scenario())
    (job,) = [body for _, body in cluster.of_kind("Job")]
    (mounted,) = [each["configMap"]["name"] for each in job["spec"]["template"]["spec"]["volumes"] if "configMap" in each]
    assert "a dog" in cluster.objects[reference("ConfigMap", mounted, "v1")]["data"]["job.json"]
    assert said(cluster.one("DiffusionEngine")) == ("False", "EnginePending")


def test_an_engine_in_use_outlives_the_config_map_of_its_prompts():
    async def scenario():
        cluster = FakeCluster()
        optimization = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
        prompts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": NAMESPACE}}
        cluster.put({**prompts, "data": {"prompts.txt": "a cat"}})
        cluster.put(deployment(optimization=optimization))
        async with running(cluster) as operator:
            await served(operator, cluster)
            before = cluster.objects[KLEIN]["status"]
            cluster.remove(reference("ConfigMap", "prompts", "v1"))
            await operator.resync()
            await served(operator, cluster)
            after = cluster.objects[KLEIN]["status"]
            cluster.edit(KLEIN, spec=deployment(optimization=optimization, model={"uri": "hf://owner/other"})["spec"])
            await served(operator, cluster)
            return before, after, cluster

    before, after, cluster = asyncio.run(scenario())
    assert before == after
    assert said(cluster.objects[KLEIN]) == ("False", "PromptsNotFound")
    assert cluster.objects[KLEIN]["status"]["readyReplicas"] == 1
    assert len(list(cluster.of_kind("DiffusionEngine"))) == 1


def test_an_engine_of_another_compiler_gets_the_prompts_of_a_config_map_that_is_gone():
    async def scenario():
        cluster = FakeCluster()
        optimization = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
        prompts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompts", "namespace": NAMESPACE}}
        cluster.put({**prompts, "data": {"prompts.txt": "a cat"}})
        cluster.put(deployment(optimization=optimization))
        async with running(cluster) as operator:
            await served(operator, cluster)
        cluster.remove(reference("ConfigMap", "prompts", "v1"))
        async with running(cluster, settings=settings(versions={"tensorrt": "12.0"})) as operator:
            await served(operator, cluster)
        return cluster

    cluster = asyncio.run(scenario())
    engines = [body["spec"]["optimization"]["calibration"]["prompts"] for _, body in cluster.of_kind("DiffusionEngine")]
    assert engines == [["a cat"], ["a cat"]]
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")


def test_recipe_and_quality_are_those_of_the_engine_that_serves():
    other = RESULT.model_copy(update={"artifact": "artifacts/engine-ffff", "quality_summary": "32.4 dB (≥ 32)"})

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            cluster.edit(KLEIN, spec=deployment(model={"uri": "hf://owner/name", "revision": "fedcba9"})["spec"])
            await settled(operator)
            cluster.run_jobs({**ELSEWHERE, "result": other.to_wire()})
            await settled(operator)
            meanwhile = cluster.objects[KLEIN]["status"]
            await served(operator, cluster)
            return meanwhile, cluster.objects[KLEIN]["status"]

    meanwhile, after = asyncio.run(scenario())
    assert (meanwhile["qualitySummary"], after["qualitySummary"]) == ("33.1 dB (≥ 32)", "32.4 dB (≥ 32)")


def pod_that_misses_files(engine: str) -> dict[str, Any]:
    end = {"exitCode": int(PrepareExit.FILES_MISSING), "message": "no manifest", "finishedAt": "2026-08-01T13:00:00Z"}
    labels = {ENGINE: engine, COMPONENT: SERVING, REVISION: "other-1", MANAGED_BY: MANAGER}
    status = {"phase": "Pending", "initContainerStatuses": [{"name": "prepare-engine", "ready": False, "state": {"terminated": end}}]}
    metadata = {"name": "other-1-a", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}


def said(body: dict[str, Any]) -> tuple[str, str]:
    (ready,) = [each for each in body["status"]["conditions"] if each["type"] == "Ready"]
    return ready["status"], ready["reason"]


def test_old_pods_do_not_have_an_engine_built_again_that_lies_elsewhere_now():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            miss_files(cluster, "2026-08-01T13:00:00Z")
            await settled(operator)
            cluster.run_jobs(ELSEWHERE)
            # Until they end, the old pods go on to say it, after the end of the new build too.
            miss_files(cluster, "2026-08-01T14:00:00Z")
            await settled(operator)
            losses = cluster.one("DiffusionEngine")["status"]["losses"]
            await served(operator, cluster)
            return losses, cluster

    losses, cluster = asyncio.run(scenario())
    assert losses == 1
    assert template_artifact(cluster.one("Deployment")["spec"]["template"]) == "artifacts/engine-ffff"
    assert cluster.one("DiffusionEngine")["status"]["losses"] == 1
    assert len(list(cluster.of_kind("Job"))) == 1
    assert cluster.objects[KLEIN]["status"]["phase"] == "Serving"


def test_pods_of_the_bucket_before_do_not_have_an_engine_built_again_and_move_to_the_one_of_today():
    def bucket(uri: str):
        return settings(engineStore={"kind": "S3", "uri": uri})

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster, settings=bucket("s3://before")) as operator:
            await served(operator, cluster)
        async with running(cluster, settings=bucket("s3://after")) as operator:
            miss_files(cluster, "2026-08-01T13:00:00Z")
            await settled(operator)
            asked = cluster.objects[KLEIN]["status"]["currentRevision"]
            (pod,) = [each for _, each in cluster.of_kind("Pod") if REVISION in each["metadata"]["labels"]]
            return cluster, pod, asked

    cluster, pod, asked = asyncio.run(scenario())
    assert not cluster.one("DiffusionEngine")["status"].get("losses")
    assert said(cluster.one("DiffusionEngine")) == ("True", "EngineReady")
    assert pod["metadata"]["labels"][REVISION] != asked
    assert (
        template_store(cluster.objects[reference("Deployment", asked, "apps/v1")]["spec"]["template"])
        == f"s3://after/namespaces/{NAMESPACE}"
    )
