"""How many pods there are, down to none, and who decides it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from diffusion_api.conditions import ConditionStatus, ConditionType, Reason
from diffusion_operator.planning.observed import Cluster
from tests.unit.diffusion_operator.scenes import settings as settings_of
from tests.unit.diffusion_operator.world import READY, serving_world


def test_scaled_to_zero_is_ready_and_a_change_waits_for_the_first_pod():
    world = serving_world(autoscaling={"minReplicas": 0, "maxReplicas": 3}, replicas=2)
    world.change(replicas=0)
    world.run()
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SCALED_TO_ZERO)
    assert "requests are refused; run `kubectl scale dd klein --namespace pictures --replicas 1`" in world.message(READY)
    assert world.pods.existing == 0
    good = world.status.last_good_revision
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.run()
    world.now += timedelta(days=1)
    world.run()
    assert world.status.last_good_revision == good
    world.change(replicas=2)
    world.run()
    assert world.status.last_good_revision == world.status.current_revision != good


KEDA = {"scaling": {"prometheusUrl": "http://prometheus:9090"}}


@pytest.mark.parametrize(
    ("cluster", "options", "kind", "verdict"),
    [
        (Cluster(keda=True), KEDA, "ScaledObject", (ConditionStatus.TRUE, Reason.AUTOSCALER_FOUND)),
        (Cluster(keda=True), {}, None, (ConditionStatus.FALSE, Reason.AUTOSCALER_MISSING)),
        (Cluster(custom_metrics=True), {}, "HorizontalPodAutoscaler", (ConditionStatus.TRUE, Reason.AUTOSCALER_FOUND)),
        (Cluster(), {}, None, (ConditionStatus.FALSE, Reason.AUTOSCALER_MISSING)),
    ],
)
def test_the_cluster_s_autoscaler_is_used_and_its_absence_is_said(cluster, options, kind, verdict):
    world = serving_world()
    world.cluster, world.options = cluster, settings_of(**options)
    world.change(autoscaling={"minReplicas": 1, "maxReplicas": 3})
    world.run()
    assert world.condition(ConditionType.SCALING_ACTIVE) == verdict
    assert world.kinds() & {"ScaledObject", "HorizontalPodAutoscaler"} == ({kind} if kind else set())
    world.change(autoscaling={"minReplicas": 2, "maxReplicas": 2})
    world.run()
    assert world.condition(ConditionType.SCALING_ACTIVE) == (ConditionStatus.FALSE, Reason.FIXED_REPLICAS)
    assert not world.kinds() & {"ScaledObject", "HorizontalPodAutoscaler"}


def test_the_hpa_s_least_is_said_where_zero_was_asked_for():
    world = serving_world()
    world.cluster = Cluster(custom_metrics=True)
    world.change(autoscaling={"minReplicas": 0, "maxReplicas": 3})
    world.run()
    assert "needs KEDA" in world.message(ConditionType.SCALING_ACTIVE)


def test_under_an_hpa_a_pod_stays_for_it_scales_none_from_zero():
    world = serving_world()
    world.cluster = Cluster(custom_metrics=True)
    world.change(autoscaling={"minReplicas": 0, "maxReplicas": 3}, replicas=0)
    world.run()
    assert world.pods.ready == world.pods.existing == 1
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SERVING)


def test_under_keda_nobody_is_told_to_scale_up_by_hand():
    world = serving_world()
    world.cluster, world.options = Cluster(keda=True), settings_of(**KEDA)
    world.change(autoscaling={"minReplicas": 0, "maxReplicas": 3}, replicas=0)
    world.run()
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SCALED_TO_ZERO)
    assert "minReplicas to 1" in world.message(READY)
    assert "kubectl scale" not in world.message(READY)
