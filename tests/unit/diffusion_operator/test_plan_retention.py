"""Engines go when nothing uses them, and never with the files of one that is served."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from diffusion_operator.settings import OperatorSettings
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, deployment, reference, running, served, settled
from tests.unit.diffusion_operator.scenes import NOW, RESULT, SETTINGS, settings

PINNED = {"uri": "hf://owner/name", "revision": "0123abc"}
UNPINNED = {"uri": "hf://owner/name"}
S3 = {"kind": "S3", "uri": "s3://models/engines"}
BUCKET = settings(engineStore=S3)
SHARED = settings(engineStore={**S3, "sharedNamespaces": [NAMESPACE, "films"]})
HALF = settings(engineStore={**S3, "sharedNamespaces": ["films"]})


def cleaned(cluster: FakeCluster) -> list[str]:
    """Engines whose files were taken out of the store."""
    return [ref.name for ref, _ in cluster.of_kind("Job") if ref.name.endswith("-cleanup")]


async def after_retention(cluster: FakeCluster, gone: list[Any], options: OperatorSettings = SETTINGS) -> None:
    """Serve all, delete some, and let the time of their engines pass."""
    now = [NOW]
    async with running(cluster, settings=options, now=lambda: now[0]) as operator:
        await served(operator, cluster)
        for ref in gone:
            cluster.remove(ref)
        await settled(operator)
        now[0] += timedelta(days=30)
        await operator.resync()
        await settled(operator)


def test_an_engine_that_goes_leaves_the_files_that_a_served_one_has_too():
    cluster = FakeCluster()
    cluster.put(deployment("pinned", model=PINNED))
    cluster.put(deployment("moving", model=UNPINNED))
    asyncio.run(after_retention(cluster, [reference("DiffusionDeployment", "moving")]))
    assert cleaned(cluster) == []
    assert cluster.one("DiffusionEngine")["status"]["result"]["artifact"] == RESULT.artifact
    assert "revision" in cluster.one("DiffusionEngine")["spec"]["model"]


def test_of_engines_with_the_same_files_the_last_takes_them_out():
    cluster = FakeCluster()
    cluster.put(deployment("pinned", model=PINNED))
    cluster.put(deployment("moving", model=UNPINNED))
    asyncio.run(after_retention(cluster, [reference("DiffusionDeployment", name) for name in ("pinned", "moving")]))
    assert len(cleaned(cluster)) == len(list(cluster.of_kind("DiffusionEngine"))) == 1


@pytest.mark.parametrize(
    ("options", "removed"), [(SETTINGS, 1), (BUCKET, 1), (SHARED, 0), (HALF, 1)], ids=["claims", "bucket", "shared", "one alone shares"]
)
def test_files_stay_for_the_namespaces_that_share_them(options, removed):
    cluster = FakeCluster()
    cluster.put(deployment("here"))
    cluster.put(deployment("there", namespace="films"))
    asyncio.run(after_retention(cluster, [reference("DiffusionDeployment", "here")], options))
    assert len(cleaned(cluster)) == removed
    assert {ref.namespace for ref, _ in cluster.of_kind("DiffusionEngine")} - {NAMESPACE} == {"films"}


def test_files_stay_for_the_revisions_of_a_namespace_that_shares_no_more():
    cluster = FakeCluster()
    cluster.put(deployment("here"))
    cluster.put(deployment("there", namespace="films"))

    async def scenario():
        async with running(cluster, settings=SHARED) as operator:
            await served(operator, cluster)
        alone = settings(engineStore={**S3, "sharedNamespaces": [NAMESPACE]})
        await after_retention(cluster, [reference("DiffusionDeployment", "here")], alone)

    asyncio.run(scenario())
    assert cleaned(cluster) == []


def test_pods_without_a_revision_keep_the_files_that_they_serve_from():
    cluster = FakeCluster()
    cluster.put(deployment())

    async def scenario():
        now = [NOW]
        async with running(cluster, now=lambda: now[0]) as operator:
            await served(operator, cluster)
            pods = [
                json.loads(json.dumps(pod))
                for _, pod in cluster.of_kind("Pod")
                if pod["metadata"]["labels"].get("diffusionoperator.io/revision")
            ]
            cluster.remove(reference("DiffusionDeployment", "klein"))
            for pod in pods:
                pod["metadata"].pop("ownerReferences")
                pod["metadata"]["name"] += "-left"
                pod["metadata"].pop("uid")
                cluster.put(pod)
            await settled(operator)
            now[0] += timedelta(days=30)
            await operator.resync()
            await settled(operator)
            kept = cleaned(cluster)
            for pod in pods:
                cluster.remove(reference("Pod", pod["metadata"]["name"], "v1"))
            await operator.resync()
            await settled(operator)
            return kept

    assert asyncio.run(scenario()) == []
    assert len(cleaned(cluster)) == 1
