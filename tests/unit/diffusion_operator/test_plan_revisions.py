"""Which revision a spec asks for: what makes another, what keeps one, and what became of its record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_api.conditions import ConditionStatus, Reason
from diffusion_api.engine import RecipeSummary
from diffusion_operator.planning.observed import Trouble, TroubleKind
from tests.unit.diffusion_operator.scenes import RESULT
from tests.unit.diffusion_operator.scenes import settings as settings_of
from tests.unit.diffusion_operator.world import PROGRESSING, READY, World, serving_world

OTHER_MODEL = {"uri": "hf://owner/name", "revision": "fedcba9"}


def forget(world: World, revision: str) -> None:
    """Somebody deletes a ControllerRevision."""
    (ref,) = [ref for ref in world.objects if (ref.kind, ref.name) == ("ControllerRevision", revision)]
    del world.objects[ref]


def test_pods_of_an_old_revision_go_though_its_record_was_deleted():
    world = serving_world()
    old = world.status.serving_revision
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.reconcile()
    forget(world, old)
    world.run()
    assert set(world.pods.revisions) == {world.status.current_revision}
    assert world.condition(PROGRESSING) == (ConditionStatus.FALSE, Reason.ROLLOUT_COMPLETE)
    assert world.restarts == []


def test_pods_go_on_as_they_are_when_their_revision_s_record_was_deleted():
    world = serving_world()
    revision = world.status.serving_revision
    world.options = settings_of(priorityClassName="high")
    forget(world, revision)
    world.run()
    assert world.restarts == []
    assert world.status.serving_revision == world.status.last_good_revision == revision
    assert revision in [record.name for record in world.observed().records]


def test_an_engine_that_was_built_elsewhere_gets_a_name_of_its_own_though_the_record_was_deleted():
    world = serving_world()
    revision = world.status.serving_revision
    forget(world, revision)
    world.move_files("artifacts/engine-ffff")
    world.run()
    assert world.restarts == []
    assert world.status.serving_revision != revision
    assert artifact_of(world, world.status.serving_revision) == "artifacts/engine-ffff"


def move_on(world: World, step: str) -> None:
    match step:
        case "serving":
            world.change(serving={"maxQueueDelayMicroseconds": 5000} if not world.spec.get("serving") else {})
        case "settings":
            world.options = settings_of() if world.options == MORE else MORE
        case "files":
            artifact = next(iter(world.engines.values())).result.artifact
            world.move_files(RESULT.artifact if artifact != RESULT.artifact else "artifacts/engine-ffff")
        case "forget":
            for record in world.observed().records[:1]:
                forget(world, record.name)
        case "break":
            world.broken.add(world.status.current_revision)
        case "mend":
            world.broken.clear()
        case "invalid":
            world.change(rollout={"strategy": "Canary"} if not world.spec.get("rollout") else {})
        case "wait":
            world.settle(4000)
    world.reconcile()
    world.settle()


steps = st.sampled_from(["serving", "settings", "files", "forget", "break", "mend", "invalid", "wait"])


@given(st.lists(steps, max_size=20))
@settings(max_examples=30, deadline=None)
def test_whatever_becomes_of_settings_files_and_records_no_pod_restarts_and_calm_brings_all_pods(sequence):
    world = serving_world()
    for step in sequence:
        move_on(world, step)
    world.broken.clear()
    world.change(rollout={}, serving={"maxQueueDelayMicroseconds": 77})
    plan = world.run()
    assert world.restarts == []
    assert world.pods.ready == world.pods.existing == 3
    assert set(world.pods.revisions) == {world.status.current_revision}
    assert artifact_of(world, world.status.current_revision) == next(iter(world.engines.values())).result.artifact
    assert (world.plan().status, world.plan().events) == (plan.status, ())


def test_an_upgraded_operator_restarts_no_pod():
    world = serving_world()
    world.options = settings_of(tolerations=[], priorityClassName="high", images={"builder": "builder:2"}, serving={"shmSize": "2Gi"})
    revision = world.status.serving_revision
    world.run()
    assert world.restarts == []
    assert (world.status.serving_revision, world.status.current_revision) == (revision, revision)
    assert len(world.engines) == 1


def artifact_of(world: World, revision: str) -> str:
    (record,) = [each for each in world.observed().records if each.name == revision]
    return record.artifact


def test_an_engine_that_was_built_elsewhere_is_served_from_there():
    world = serving_world()
    first = world.status.serving_revision
    assert artifact_of(world, first) == RESULT.artifact
    world.move_files("artifacts/engine-ffff")
    world.run()
    moved = world.status.serving_revision
    assert moved == world.status.current_revision != first
    assert artifact_of(world, moved) == "artifacts/engine-ffff"
    assert set(world.pods.revisions) == {moved}
    assert world.restarts == []
    world.move_files(RESULT.artifact)
    world.run()
    assert world.status.serving_revision == first


def test_no_rollout_goes_back_to_a_revision_whose_engine_s_files_are_gone():
    world = serving_world()
    first = world.status.serving_revision
    for _ in range(3):
        world.pods.happen("break", first)
    world.broken.add(first)
    world.move_files("artifacts/engine-ffff")
    world.reconcile()
    moved = world.status.current_revision
    world.broken.add(moved)
    world.settle(3 * 3600)
    world.run()
    assert world.pods.revisions[moved].desired
    assert world.condition(PROGRESSING) == (ConditionStatus.FALSE, Reason.PODS_NOT_READY)
    assert world.status.last_good_revision is None
    world.broken.discard(moved)
    world.pods.settle()
    world.run()
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SERVING)
    assert world.status.serving_revision == world.status.last_good_revision == moved


@pytest.mark.parametrize("limit", [0, 5])
def test_an_upgraded_operator_restarts_no_pod_of_an_engine_that_was_built_elsewhere(limit):
    world = serving_world(rollout={"revisionHistoryLimit": limit})
    world.move_files("artifacts/engine-ffff")
    world.run()
    moved = world.status.serving_revision
    world.options = settings_of(priorityClassName="high", serving={"shmSize": "2Gi"})
    world.run()
    assert (world.status.serving_revision, world.status.current_revision) == (moved, moved)
    assert world.restarts == []


def template_of(world: World, revision: str) -> dict[str, Any]:
    (record,) = [each for each in world.observed().records if each.name == revision]
    return record.template["spec"]


MORE = settings_of(serving={"resources": {"memory": "64Gi"}}, images={"pullSecrets": ["registry"]}, tolerations=[{"operator": "Exists"}])


def test_a_first_revision_that_never_served_gets_changed_settings():
    world = World(trouble=Trouble(TroubleKind.OUT_OF_MEMORY, "OOMKilled"))
    world.run(1)
    world.build()
    world.reconcile()
    first = world.status.current_revision
    world.broken.add(first)
    world.run()
    assert "resources.memory" in world.message(READY)
    world.options = MORE
    world.run()
    assert world.condition(READY) == (ConditionStatus.TRUE, Reason.SERVING)
    tried = world.status.serving_revision
    assert tried != first
    triton = template_of(world, tried)["containers"][0]
    assert triton["resources"]["limits"]["memory"] == "64Gi"
    assert template_of(world, tried)["imagePullSecrets"] == [{"name": "registry"}]
    assert template_of(world, tried)["tolerations"] == [{"operator": "Exists"}]
    world.options = settings_of()
    world.run()
    assert world.status.serving_revision == tried
    assert world.restarts == []


def test_an_abandoned_revision_is_tried_again_with_changed_settings_and_only_then():
    world = serving_world()
    good = world.status.serving_revision
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.reconcile()
    bad = world.status.current_revision
    world.broken.add(bad)
    world.run()
    world.now += timedelta(hours=1)
    world.run()
    assert (world.status.current_revision, world.status.serving_revision) == (bad, good)
    world.options = MORE
    world.run()
    assert world.status.serving_revision == world.status.current_revision
    assert world.status.serving_revision not in (bad, good)
    assert world.condition(PROGRESSING) == (ConditionStatus.FALSE, Reason.ROLLOUT_COMPLETE)


def test_a_revision_that_served_and_runs_out_of_memory_gets_changed_settings_once_no_pod_is_ready():
    world = serving_world()
    good = world.status.serving_revision
    world.trouble = Trouble(TroubleKind.OUT_OF_MEMORY, "OOMKilled")
    world.broken.add(good)
    world.pods.happen("break", good)
    world.options = MORE
    world.reconcile()
    assert world.status.current_revision == good
    for _ in range(2):
        world.pods.happen("break", good)
    world.run()
    assert world.status.serving_revision == world.status.current_revision != good
    assert world.status.ready_replicas == 3


@pytest.mark.parametrize("lost", [1, 3])
def test_a_revision_that_served_looks_for_lost_files_in_the_store_of_today(lost):
    store = {"kind": "S3", "uri": "s3://before"}
    world = World({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}, options=settings_of(engineStore=store))
    world.run(1)
    world.build()
    world.run()
    good = world.status.serving_revision
    world.options = settings_of(engineStore={**store, "uri": "s3://after"})
    world.run()
    assert world.status.current_revision == good
    world.trouble = Trouble(TroubleKind.FILES_MISSING, "no manifest")
    world.broken.add(good)
    for _ in range(lost):
        world.pods.happen("break", good)
    world.reconcile()
    world.broken.add(world.status.current_revision)
    world.settle(3 * 3600)
    world.run()
    assert world.condition(PROGRESSING) == (ConditionStatus.FALSE, Reason.PODS_NOT_READY)
    world.broken.discard(world.status.current_revision)
    world.pods.settle()
    world.run()
    moved = world.status.serving_revision
    assert moved == world.status.current_revision != good
    assert "s3://after/" in str(template_of(world, moved)["initContainers"])
    assert world.restarts == []


def test_going_back_brings_the_template_that_served():
    world = serving_world()
    good = world.status.serving_revision
    before = template_of(world, good)
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.run()
    world.options = MORE
    world.change(serving={})
    world.run()
    assert world.status.serving_revision == good
    assert template_of(world, good) == before


INT8 = RESULT.model_copy(
    update={"artifact": "artifacts/engine-ffff", "recipe": RecipeSummary(label="INT8"), "quality_summary": "32.4 dB (≥ 32)"}
)


def test_recipe_and_quality_are_those_of_the_revision_that_serves():
    world = serving_world()
    good = world.status.serving_revision
    world.change(model=OTHER_MODEL)
    world.run()
    world.build(result=INT8)
    world.reconcile()
    bad = world.status.current_revision
    assert world.status.recipe == RESULT.recipe.label
    world.broken.add(bad)
    world.run()
    world.now += timedelta(hours=1)
    world.run()
    assert (world.status.serving_revision, world.status.current_revision) == (good, bad)
    assert (world.status.recipe, world.status.quality_summary) == (RESULT.recipe.label, "33.1 dB (≥ 32)")
    world.broken.clear()
    world.change(serving={"maxQueueDelayMicroseconds": 5000})
    world.run()
    assert world.status.serving_revision == world.status.current_revision != good
    assert (world.status.recipe, world.status.quality_summary) == ("INT8", "32.4 dB (≥ 32)")


def test_a_new_triton_image_rolls_out_as_a_revision():
    world = serving_world()
    revision = world.status.serving_revision
    world.options = settings_of(images={"tritonGpu": "triton:2"})
    world.run()
    assert world.restarts == []
    assert world.status.serving_revision != revision


def test_history_keeps_as_many_revisions_as_the_user_wants():
    world = serving_world(rollout={"revisionHistoryLimit": 2})
    for delay in range(1, 7):
        world.change(serving={"maxQueueDelayMicroseconds": delay})
        world.run()
    records = [ref for ref in world.objects if ref.kind == "ControllerRevision"]
    assert len(records) == 3
    assert len([ref for ref in world.objects if ref.kind == "Deployment"]) == 1
