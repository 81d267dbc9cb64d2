"""What is refused or taken away of a deployment's objects keeps no pod from serving, or from going, that does not need it."""

from __future__ import annotations

import asyncio

import pytest

from diffusion_operator.cluster.client import Served
from diffusion_operator.cluster.errors import RefusedError
from diffusion_operator.cluster.kinds import CLAIM_TEMPLATE
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import deployment, reference, running, said, served, settled
from tests.unit.diffusion_operator.scenes import settings

KLEIN = reference("DiffusionDeployment", "klein")


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "DiffusionEngine"])
def test_pods_serve_where_what_is_around_them_is_refused(kind):
    def refuses(manifest):
        if manifest["kind"] == kind:
            raise RefusedError("no such thing here")

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster):
            while not list(cluster.of_kind("Deployment")):
                cluster.run_jobs()
                await asyncio.sleep(0)
            cluster.check = refuses
            cluster.remove(reference("PodDisruptionBudget", "klein", "policy/v1"))
            cluster.edit(
                KLEIN, spec=deployment(model={"uri": "hf://owner/other"}, autoscaling={"minReplicas": 3, "maxReplicas": 3})["spec"]
            )
            while len([ref for ref, pod in cluster.of_kind("Pod") if "Ready" in str(pod["status"].get("conditions"))]) < 3:
                cluster.run_deployments()
                await asyncio.sleep(0)
        return cluster

    cluster = asyncio.run(scenario())
    assert cluster.one("Deployment")["spec"]["replicas"] == 3


def test_pods_of_a_revision_whose_record_was_deleted_go_with_a_rollout():
    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster) as operator:
            await served(operator, cluster)
            old = cluster.one("ControllerRevision")["metadata"]["name"]
            cluster.edit(KLEIN, spec=deployment(serving={"maxQueueDelayMicroseconds": 5})["spec"])
            await settled(operator)
            cluster.remove(reference("ControllerRevision", old, "apps/v1"))
            await served(operator, cluster)
        return old, cluster

    old, cluster = asyncio.run(scenario())
    assert cluster.one("Deployment")["metadata"]["name"] == cluster.objects[KLEIN]["status"]["servingRevision"] != old


@pytest.mark.parametrize("changed", [{"enabled": False}, {"enabled": True, "deviceClass": "gpu.example.com"}], ids=["off", "another class"])
def test_pods_with_claims_are_scaled_after_dynamic_resources_were_changed(changed):
    def refuses(manifest):
        if manifest["kind"] == "ResourceClaimTemplate":
            raise RefusedError("spec is immutable, and without the right it is out of reach")

    async def scenario():
        cluster = FakeCluster()
        cluster.served_now = Served(frozenset({CLAIM_TEMPLATE}))
        cluster.put(deployment())
        async with running(cluster, settings=settings(dynamicResources={"enabled": True})) as operator:
            await served(operator, cluster)
        made = list(cluster.of_kind("ResourceClaimTemplate"))
        cluster.check = refuses
        cluster.edit(KLEIN, spec=deployment(autoscaling={"minReplicas": 2, "maxReplicas": 2})["spec"])
        async with running(cluster, settings=settings(dynamicResources=changed)) as operator:
            await served(operator, cluster)
        return made, cluster

    made, cluster = asyncio.run(scenario())
    assert cluster.one("Deployment")["spec"]["replicas"] == 2
    assert said(cluster.objects[KLEIN]) == ("True", "Serving")
    assert list(cluster.of_kind("ResourceClaimTemplate")) == made
