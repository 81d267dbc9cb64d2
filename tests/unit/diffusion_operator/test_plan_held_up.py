"""A spec that leads nowhere is told, and what serves goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from diffusion_api.conditions import ConditionStatus, Reason
from tests.unit.diffusion_operator.world import PROGRESSING, READY, World, serving_world

INVALID = {"accelerator": {"product": "NVIDIA-L4"}, "optimization": {"quantization": {"format": "NVFP4"}}}
PROMPTED = {"qualityBudget": {"minPSNR": 31}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}


def test_an_invalid_spec_is_reported_and_what_serves_serves_on():
    world = serving_world()
    objects = dict(world.objects)
    world.change(**INVALID)
    plan = world.reconcile()
    assert world.condition(READY) == world.condition(PROGRESSING) == (ConditionStatus.FALSE, Reason.UNSUPPORTED_FORMAT)
    assert "it can run" in world.message(READY)
    assert plan.delete == ()
    assert world.objects == objects
    assert world.status.observed_generation == world.generation


@pytest.mark.parametrize("change", [INVALID, {"optimization": PROMPTED}], ids=["invalid", "without prompts"])
def test_what_serves_is_scaled_healed_and_counted_while_the_spec_leads_nowhere(change):
    world = serving_world()
    revision, engine = world.status.serving_revision, world.status.engine
    world.change(**change, autoscaling={"minReplicas": 4, "maxReplicas": 4})
    world.run()
    assert world.status.ready_replicas == world.pods.revisions[revision].ready == 4
    gone = [ref for ref in world.objects if ref.kind in ("Service", "Deployment", "PodDisruptionBudget")]
    for ref in gone:
        del world.objects[ref]
    world.reconcile()
    assert set(gone) <= set(world.objects)
    world.pods.happen("evict", revision)
    world.reconcile()
    assert world.status.ready_replicas == 3
    assert (world.status.serving_revision, world.status.engine, world.status.updated_replicas) == (revision, engine, 0)
    assert world.restarts == []
    assert len(world.engines) == 1


def test_a_revision_that_cannot_load_is_given_up_while_the_spec_is_invalid():
    world = serving_world()
    good = world.status.serving_revision
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.reconcile()
    world.broken.add(world.status.current_revision)
    world.run(3)
    world.change(**INVALID)
    world.now += timedelta(hours=1)
    world.run()
    assert world.pods.revisions[good].ready == 3
    assert set(world.pods.revisions) == {good}


def test_canary_is_refused_and_not_silently_something_else():
    world = World({"rollout": {"strategy": "Canary"}})
    assert world.reconcile().apply == ()
    assert world.condition(READY) == (ConditionStatus.FALSE, Reason.INVALID_SPEC)
    assert "RollingUpdate" in world.message(READY)


def test_prompts_of_a_config_map_become_part_of_the_engine():
    optimization = {"qualityBudget": {"minPSNR": 32}, "calibration": {"promptsConfigMap": {"name": "prompts"}}}
    world = World({"optimization": optimization})
    world.reconcile()
    assert world.condition(READY) == (ConditionStatus.FALSE, Reason.PROMPTS_NOT_FOUND)
    world.prompts = ("a red digit seven",)
    (made,) = world.reconcile().apply
    assert made["spec"]["optimization"]["calibration"]["prompts"] == ["a red digit seven"]
    assert "promptsConfigMap" not in made["spec"]["optimization"]["calibration"]
    world.prompts = ("a blue three",)
    assert world.reconcile().apply[0]["metadata"]["name"] != made["metadata"]["name"]
