"""The rollout's arithmetic, against a small cluster that starts, breaks and ends pods in any order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_api.serving import Rollout, RolloutStrategy
from diffusion_operator.planning.observed import RevisionPods
from diffusion_operator.planning.rollout import is_complete, rollout_step
from tests.unit.diffusion_operator.simulation import SimulatedCluster

ROLLING = RolloutStrategy.ROLLING_UPDATE


rollouts = st.builds(
    lambda strategy, surge, unavailable: Rollout(strategy=strategy, max_surge=surge, max_unavailable=max(unavailable, 0 if surge else 1)),
    st.sampled_from([ROLLING, RolloutStrategy.RECREATE]),
    st.integers(0, 3),
    st.integers(0, 3),
)
names = st.sampled_from("abc")
happenings = st.one_of(
    st.tuples(st.sampled_from(["start", "break", "evict", "end"]), names),
    st.tuples(st.just("target"), names),
    st.tuples(st.just("wanted"), st.integers(0, 8)),
    st.tuples(st.just("pause"), st.booleans()),
)


@given(rollouts, st.integers(0, 8), st.lists(happenings, max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_step_keeps_its_promises_and_calm_brings_completion(rollout, wanted, sequence):
    cluster, target = SimulatedCluster(), "a"
    for event, value in [*sequence, ("pause", False)]:
        match event:
            case "target":
                target = value
            case "wanted":
                wanted = value
            case "pause":
                rollout = rollout.model_copy(update={"paused": value})
            case _:
                cluster.happen(event, value)
        step(cluster, target, wanted, rollout)
    for _ in range(40):
        step(cluster, target, wanted, rollout)
        cluster.settle()
    assert is_complete(target, cluster.observed(), wanted)
    assert rollout_step(target, cluster.observed(), wanted, rollout).complete
    assert cluster.existing == cluster.ready == wanted


def step(cluster: SimulatedCluster, target: str, wanted: int, rollout: Rollout) -> None:
    ready, existing = cluster.ready, cluster.existing
    replicas = rollout_step(target, cluster.observed(), wanted, rollout).replicas
    cluster.apply(dict(replicas))
    surge = rollout.max_surge if rollout.strategy is ROLLING else 0
    assert cluster.existing <= max(existing, wanted + rollout.max_surge if rollout.paused else wanted + surge)
    assert all(count >= 0 for count in replicas.values())
    if rollout.strategy is ROLLING:
        assert cluster.ready >= min(ready, wanted - rollout.max_unavailable)


def pods(ready: int, desired: int | None = None, existing: int | None = None) -> RevisionPods:
    desired = ready if desired is None else desired
    return RevisionPods(desired=desired, existing=desired if existing is None else existing, ready=ready)


@pytest.mark.parametrize(
    ("rollout", "before", "after"),
    [
        (Rollout(), {"old": pods(1)}, {"old": 0, "new": 0}),
        (Rollout(), {"old": pods(0, 0, existing=1)}, {"old": 0, "new": 0}),
        (Rollout(), {"old": pods(0, 0, existing=0)}, {"old": 0, "new": 1}),
        (Rollout(max_surge=1, max_unavailable=0), {"old": pods(1)}, {"old": 1, "new": 1}),
        (Rollout(max_surge=1, max_unavailable=0), {"old": pods(1), "new": pods(0, 1)}, {"old": 1, "new": 1}),
        (Rollout(max_surge=1, max_unavailable=0), {"old": pods(1), "new": pods(1)}, {"old": 0, "new": 1}),
    ],
)
def test_one_replica_moves_without_an_extra_gpu_unless_surge_allows_one(rollout, before, after):
    assert rollout_step("new", before, 1, rollout).replicas == after


def test_a_broken_revision_makes_room_for_the_last_good_one():
    before = {"old": pods(3), "new": pods(0, 1)}
    assert rollout_step("old", before, 4, Rollout()).replicas == {"new": 0, "old": 3}
    assert rollout_step("old", {"old": pods(3)}, 4, Rollout()).replicas == {"old": 4}


def test_recreate_ends_all_old_pods_before_it_starts_new_ones():
    rollout = Rollout(strategy=RolloutStrategy.RECREATE)
    assert rollout_step("new", {"old": pods(2)}, 2, rollout).replicas == {"old": 0, "new": 0}
    assert rollout_step("new", {"old": pods(0, 0, existing=1)}, 2, rollout).replicas == {"old": 0, "new": 0}
    assert rollout_step("new", {"old": pods(0, 0, existing=0)}, 2, rollout).replicas == {"old": 0, "new": 2}


def test_a_pause_keeps_the_split_and_still_scales():
    paused = Rollout(paused=True)
    before = {"old": pods(3), "new": pods(1)}
    assert rollout_step("new", before, 4, paused).replicas == {"old": 3, "new": 1}
    assert rollout_step("new", before, 6, paused).replicas == {"old": 5, "new": 1}
    assert rollout_step("new", before, 2, paused).replicas == {"old": 1, "new": 1}


def test_scaled_down_during_a_pause_a_rollout_loses_what_serves_nobody_first():
    before = {"old": pods(1, 2), "new": pods(0, 2)}
    assert rollout_step("new", before, 2, Rollout(paused=True)).replicas == {"old": 1, "new": 1}


@pytest.mark.parametrize(
    ("rollout", "after"),
    [
        (Rollout(paused=True), {"old": 3, "new": 1}),
        (Rollout(paused=True, max_surge=1, max_unavailable=0), {"old": 4, "new": 1}),
    ],
)
def test_scaled_down_during_a_pause_a_rollout_keeps_a_new_pod_that_loads_if_it_promises_no_old_one(rollout, after):
    before = {"old": pods(4 + rollout.max_surge), "new": pods(0, 1)}
    assert rollout_step("new", before, 4, rollout).replicas == after


def test_scaled_down_during_a_pause_a_rollout_keeps_the_pods_that_it_promises():
    before = {"old": pods(4), "new": pods(0, 2)}
    assert rollout_step("new", before, 4, Rollout(paused=True, max_surge=1, max_unavailable=0)).replicas == {"old": 4, "new": 1}


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ({"old": pods(1), "new": pods(0, 1)}, 1, {"old": 1, "new": 0}),
        ({"old": pods(2), "new": pods(0, 1)}, 1, {"old": 1, "new": 0}),
        ({"old": pods(1), "new": pods(1)}, 1, {"old": 1, "new": 0}),
        ({"old": pods(0, 1), "new": pods(0, 1)}, 1, {"old": 1, "new": 0}),
        ({"old": pods(0, 1), "new": pods(1)}, 1, {"old": 0, "new": 1}),
        ({"old": pods(1), "new": pods(1)}, 0, {"old": 0, "new": 0}),
    ],
)
def test_no_scaling_ends_a_pause_by_taking_the_last_old_pod_while_it_serves(before, wanted, after):
    assert rollout_step("new", before, wanted, Rollout(paused=True)).replicas == after


counts = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda each: pods(min(each), max(each)))


@given(st.fixed_dictionaries({"a": counts, "b": counts, "new": counts}), st.integers(0, 8), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=500, deadline=None)
def test_scaling_during_a_pause_takes_what_is_too_many_and_no_service(before, wanted, surge, unavailable):
    rollout = Rollout(max_surge=surge, max_unavailable=max(unavailable, 0 if surge else 1), paused=True)
    if not before["a"].held and not before["b"].held:
        return  # Nothing to hold.
    after = rollout_step("new", before, wanted, rollout).replicas
    ready = {name: min(state.ready, after[name]) for name, state in before.items()}
    had = sum(state.ready for state in before.values())
    assert sum(after.values()) <= max(wanted + surge, wanted)
    assert sum(ready.values()) >= min(had, max(wanted - rollout.max_unavailable, min(1, wanted)))
    if wanted and before["a"].ready + before["b"].ready:
        assert ready["a"] + ready["b"] > 0


def test_old_pods_that_are_not_ready_for_a_moment_are_not_all_taken():
    assert rollout_step("new", {"old": pods(0, 4)}, 4, Rollout()).replicas == {"old": 3, "new": 0}
    assert rollout_step("new", {"old": pods(0, 3), "new": pods(0, 1)}, 4, Rollout()).replicas == {"old": 3, "new": 1}
