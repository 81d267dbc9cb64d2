"""Whether the autoscaler scales is what it says itself, not that it is there."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from diffusion_operator.cluster.client import Served
from diffusion_operator.observing.deployments import FIRST_METRIC_SECONDS, autoscaler_problems
from diffusion_operator.reconciling.keys import Controller, Key
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import NAMESPACE, condition, deployment, reference, running, said, served, settled
from tests.unit.diffusion_operator.scenes import NOW

KLEIN = reference("DiffusionDeployment", "klein")
HPA = reference("HorizontalPodAutoscaler", "klein", "autoscaling/v2")
NO_METRIC = "the HPA was unable to compute the replica count: unable to get metric diffusion_pending_requests: no metrics returned"


def saying(type, status="False", reason="FailedGetPodsMetric", kind="HorizontalPodAutoscaler"):
    return {
        "kind": kind,
        "metadata": {},
        "status": {"conditions": [{"type": type, "status": status, "reason": reason, "message": NO_METRIC}]},
    }


@pytest.mark.parametrize(
    ("body", "serves", "problems"),
    [
        (saying("ScalingActive"), True, {"HorizontalPodAutoscaler": NO_METRIC}),
        (saying("ScalingActive"), False, {}),
        (saying("ScalingActive", "True"), True, {}),
        (saying("ScalingActive", reason="ScalingDisabled"), True, {}),
        (saying("AbleToScale"), False, {"HorizontalPodAutoscaler": NO_METRIC}),
        (saying("Ready", kind="ScaledObject"), False, {"ScaledObject": NO_METRIC}),
        (saying("Ready", "Unknown", kind="ScaledObject"), False, {}),
        (saying("ScalingLimited"), True, {}),
        ({"kind": "ScaledObject", "metadata": {}}, True, {}),
    ],
)
def test_an_autoscaler_that_cannot_scale_says_so(body, serves, problems):
    assert autoscaler_problems([body], serves=serves) == problems


def test_scaling_is_not_active_while_the_autoscaler_reads_no_metric():
    async def scenario():
        cluster, now = FakeCluster(), [NOW]
        cluster.served_now = Served(frozenset(), custom_metrics=True)
        cluster.put(deployment(autoscaling={"minReplicas": 1, "maxReplicas": 3}))
        async with running(cluster, now=lambda: now[0]) as operator:
            await served(operator, cluster)
            stories = [cluster.objects[KLEIN]]
            now[0] += timedelta(minutes=2)
            for status in ("False", "True"):
                cluster.edit(HPA, status=saying("ScalingActive", status)["status"])
                await settled(operator)
                stories.append(cluster.objects[KLEIN])
        return stories

    stories = asyncio.run(scenario())
    assert [said(each, "ScalingActive") for each in stories] == [
        ("True", "AutoscalerFound"),
        ("False", "AutoscalerFailing"),
        ("True", "AutoscalerFound"),
    ]
    assert "no metrics returned" in condition(stories[1], "ScalingActive")["message"]
    assert said(stories[1]) == ("True", "Serving")


def test_an_autoscaler_that_waits_for_the_first_metric_of_a_cold_start_is_given_its_time():
    async def scenario():
        cluster = FakeCluster()
        cluster.served_now = Served(frozenset(), custom_metrics=True)
        cluster.put(deployment(autoscaling={"minReplicas": 1, "maxReplicas": 3}))
        async with running(cluster, now=lambda: NOW) as operator:
            await served(operator, cluster)
            cluster.edit(HPA, status=saying("ScalingActive")["status"])
            await settled(operator)
            outcome = await operator._reconciler.reconcile(Key(Controller.DEPLOYMENT, NAMESPACE, "klein"))
        return cluster, outcome

    cluster, outcome = asyncio.run(scenario())
    assert said(cluster.objects[KLEIN], "ScalingActive") == ("True", "AutoscalerFound")
    assert "AutoscalerFailing" not in [event["reason"] for _, event in cluster.of_kind("Event")]
    assert outcome.requeue_seconds == FIRST_METRIC_SECONDS
