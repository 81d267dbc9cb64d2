"""Engines go when nothing uses them, and never with the files of one that is served."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from diffusion_api.conditions import Condition, ConditionStatus, Reason
from diffusion_api.engine import DiffusionEngineStatus
from diffusion_operator.observing.deployments import observed_engine
from diffusion_operator.planning.engine import EnginePlan, plan_engine
from diffusion_operator.planning.observed import EngineState, JobPhase, ObservedBuild
from diffusion_operator.planning.plan import EventType
from diffusion_operator.settings import OperatorSettings
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, deployment, reference, running, said, served, settled
from tests.unit.diffusion_operator.scenes import NOW, RESULT, SETTINGS, engine, settings

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


END = NOW + timedelta(seconds=SETTINGS.engine_retention_seconds)


def unused(conditions: tuple[Condition, ...] = ()) -> dict[str, Any]:
    status = DiffusionEngineStatus(result=RESULT, users=0, unused_since=NOW, conditions=conditions)
    return status.to_wire()


def failed_cleanup(status: dict[str, Any], now: datetime, options: OperatorSettings = SETTINGS) -> EnginePlan:
    """What is planned where the Job that takes the files out failed at the end of the retention, or ten minutes ago."""
    failed_at = max(END, now - timedelta(minutes=10))
    return plan_engine(engine(status), ObservedBuild(cleanup=JobPhase.FAILED, cleanup_failed_at=failed_at), options, now)


def test_an_engine_whose_files_cannot_be_removed_stays_and_says_so():
    made = failed_cleanup(unused(), END)
    (ready,) = made.status.conditions
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, Reason.CLEANUP_FAILED)
    assert f"{RESULT.artifact} on claim diffusion-engine-store" in ready.message
    assert "Job engine-0123456789abcdef-cleanup" in ready.message
    assert [(each.type, each.reason) for each in made.events] == [(EventType.WARNING, "CleanupFailed")]
    assert (made.delete, made.requeue_seconds) == ((), 3600)
    again = failed_cleanup(made.status.to_wire(), END + timedelta(minutes=5))
    assert (again.status, again.events) == (made.status, ())
    assert observed_engine(engine(made.status.to_wire())).state is EngineState.PENDING


def test_files_that_could_not_be_removed_are_tried_again_after_an_hour():
    status = failed_cleanup(unused(), END).status.to_wire()
    later = plan_engine(engine(status), ObservedBuild(cleanup=JobPhase.FAILED, cleanup_failed_at=END), SETTINGS, END + timedelta(hours=1))
    assert [(ref.kind, ref.name) for ref in later.delete] == [("Job", "engine-0123456789abcdef-cleanup")]
    assert [each["kind"] for each in plan_engine(engine(status), ObservedBuild(), SETTINGS, END + timedelta(hours=1)).apply] == ["Job"]


def test_after_a_day_an_event_names_the_files_that_stay_and_the_engine_goes():
    status = failed_cleanup(unused(), END).status.to_wire()
    assert not failed_cleanup(status, END + timedelta(hours=23)).delete
    gone = failed_cleanup(status, END + timedelta(hours=24), SHARED)
    assert [ref.kind for ref in gone.delete] == ["DiffusionEngine"]
    ((kind, reason, message),) = [(each.type, each.reason, each.message) for each in gone.events]
    assert (kind, reason) == (EventType.WARNING, "CleanupFailed")
    assert f"s3://models/engines/shared/{RESULT.artifact} stays" in message


def test_what_stays_of_an_engine_is_told_though_it_is_gone():
    cluster = FakeCluster()
    cluster.put(deployment())

    async def scenario():
        now = [NOW]
        async with running(cluster, now=lambda: now[0]) as operator:
            await served(operator, cluster)
            cluster.remove(reference("DiffusionDeployment", "klein"))
            await settled(operator)
            now[0] += timedelta(days=30)
            for _ in range(2):
                await operator.resync()
                await settled(operator)
                cluster.run_jobs({}, exit_code=1)
                await settled(operator)
                assert said(cluster.one("DiffusionEngine")) == ("False", "CleanupFailed")
            now[0] += timedelta(days=1)
            cluster.run_jobs({}, exit_code=1)
            await settled(operator)
        return [event["note"] for _, event in cluster.of_kind("Event") if event["reason"] == "CleanupFailed"]

    notes = asyncio.run(scenario())
    assert not list(cluster.of_kind("DiffusionEngine"))
    assert [f"{RESULT.artifact} on claim diffusion-engine-store stays" in note for note in notes].count(True) == 1


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
