"""The operator fails, or dies, at each of its calls in turn; what it comes to is the same."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import FaultyClient, KilledError, deployment, reference, running, served, unavailable

KLEIN = reference("DiffusionDeployment", "klein")


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr("diffusion_operator.application.RETRY_SECONDS", 0)


CHANGED = {"serving": {"maxQueueDelayMicroseconds": 5000}, "autoscaling": {"minReplicas": 2, "maxReplicas": 2}}
START = {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}


async def first_reconcile(cluster: FakeCluster, client: FaultyClient) -> None:
    async with running(cluster, client) as operator:
        await served(operator, cluster)


def new_cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.put(deployment(**START))
    return cluster


@cache
def first_served() -> FakeCluster:
    cluster = new_cluster()
    asyncio.run(first_reconcile(cluster, FaultyClient(cluster, None, before=True, error=unavailable())))
    return cluster


def serving_cluster() -> FakeCluster:
    """Serves the first revision, and was just asked for the second."""
    cluster = first_served().copied()
    cluster.edit(KLEIN, spec=deployment(**CHANGED)["spec"])
    return cluster


BEGINNINGS = {"first reconcile": new_cluster, "rollout": serving_cluster}


def without_times(state):
    """Names of pods count attempts, and retries of events are no difference."""
    return {name: body for name, body in state.items() if "Pod'" not in name}


@pytest.mark.parametrize("before", [True, False], ids=["request lost", "answer lost"])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_call_that_fails_changes_nothing_in_the_end(beginning, before):
    undisturbed = BEGINNINGS[beginning]()
    client = FaultyClient(undisturbed, None, before=before, error=unavailable())
    asyncio.run(first_reconcile(undisturbed, client))
    calls = client.calls
    assert calls > 20
    for number in range(calls):
        cluster = BEGINNINGS[beginning]()
        asyncio.run(first_reconcile(cluster, FaultyClient(cluster, number, before=before, error=unavailable())))
        assert without_times(cluster.state()) == without_times(undisturbed.state()), f"after call {number} failed"
        assert len(list(cluster.of_kind("Job"))) == 1


@pytest.mark.parametrize("before", [True, False], ids=["before the request", "before the answer"])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_an_operator_that_dies_at_any_call_is_succeeded_by_one_that_comes_to_the_same(beginning, before):
    undisturbed = BEGINNINGS[beginning]()
    client = FaultyClient(undisturbed, None, before=before, error=KilledError())
    asyncio.run(first_reconcile(undisturbed, client))
    for number in range(client.calls):
        cluster = BEGINNINGS[beginning]()
        with pytest.raises((KilledError, BaseExceptionGroup)) as killed:
            asyncio.run(first_reconcile(cluster, FaultyClient(cluster, number, before=before, error=KilledError())))
        if isinstance(killed.value, BaseExceptionGroup):
            assert killed.value.subgroup(KilledError)
        asyncio.run(first_reconcile(cluster, FaultyClient(cluster, None, before=before, error=KilledError())))
        assert without_times(cluster.state()) == without_times(undisturbed.state()), f"killed at call {number}"
        assert len(list(cluster.of_kind("Job"))) == 1
