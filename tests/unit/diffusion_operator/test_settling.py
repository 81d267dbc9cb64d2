"""Somebody undoes what the operator does: no hot loop, and it is said."""

from __future__ import annotations

import asyncio

import pytest

from diffusion_operator.metrics import OperatorMetrics
from diffusion_operator.reconciling.controller import ControllerLoop
from diffusion_operator.reconciling.keys import Controller, Key, Outcome
from diffusion_operator.reconciling.settling import LONGEST_SECONDS, SETTLING_LIMIT, SETTLING_SECONDS, Settling
from diffusion_operator.reconciling.work_queue import BackOff
from tests.unit.diffusion_operator.fake_cluster import FakeCluster
from tests.unit.diffusion_operator.running import deployment, reference, running, served, settled

KEY = Key(Controller.DEPLOYMENT, "pictures", "klein")
KLEIN, SERVICE = reference("DiffusionDeployment", "klein"), reference("Service", "klein", "v1")
QUIET, CHANGED, REPEATED = Outcome(), Outcome(changed=True), Outcome(changed=True, repeated=True)
BACK_OFF = BackOff(first_seconds=1.0, longest_seconds=1000.0, jitter=0.0)
THEIRS = {"selector": {"app": "mesh"}, "ports": []}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_rollout_may_change_as_much_as_it_likes():
    settling = Settling(BACK_OFF, Clock())
    assert {settling.look(KEY, outcome) for _ in range(200) for outcome in (CHANGED, QUIET)} == {0.0}


@pytest.mark.parametrize("between", [[], [QUIET]], ids=["at once", "after a while"])
def test_what_is_done_again_and_again_is_held_back_longer_each_time(between):
    settling = Settling(BACK_OFF, Clock())
    waits = []
    for _ in range(SETTLING_LIMIT + 8):
        waits.append(settling.look(KEY, REPEATED))
        for outcome in between:
            assert settling.look(KEY, outcome) == 0.0
    assert waits == [0.0] * SETTLING_LIMIT + [1, 2, 4, 8, 16, 32, LONGEST_SECONDS, LONGEST_SECONDS]


def test_a_change_undone_now_and_then_is_no_quarrel():
    clock = Clock()
    settling = Settling(BACK_OFF, clock)
    for _ in range(5 * SETTLING_LIMIT):
        assert settling.look(KEY, REPEATED) == 0.0
        settling.look(KEY, QUIET)
        clock.now += SETTLING_SECONDS + 1


def test_a_changed_spec_waits_for_nothing_and_its_echo_waits():
    clock = Clock()
    settling = Settling(BACK_OFF, clock)
    for _ in range(SETTLING_LIMIT + 1):
        settling.look(KEY, REPEATED)
    assert settling.held_seconds(KEY, None) == 1.0
    assert settling.held_seconds(KEY, 2) == 0.0
    assert settling.held_seconds(KEY, 2) == 1.0
    assert settling.held_seconds(KEY, 3) == 0.0
    clock.now += 1
    assert settling.held_seconds(KEY, None) == 0.0


def unsettled(operator):
    samples = operator.metrics.unsettled.collect()[0].samples
    return sum(sample.value for sample in samples)


@pytest.mark.parametrize("is_prompt", [True, False], ids=["at once", "after a while"])
def test_another_field_manager_that_never_gives_in_makes_no_hot_loop(is_prompt):
    rounds = 4 * SETTLING_LIMIT

    async def scenario():
        cluster = FakeCluster()
        cluster.put(deployment())
        async with running(cluster, back_off=BackOff(first_seconds=60.0)) as operator:
            await served(operator, cluster)
            applied = cluster.apply

            async def undone(manifest, *, force):
                answer = await applied(manifest, force=force)
                if manifest["kind"] == "Service" and is_prompt:
                    cluster.edit(SERVICE, spec=THEIRS)
                return answer

            cluster.apply = undone
            before = cluster.calls.count(("apply", "Service"))
            for _ in range(rounds):
                cluster.edit(SERVICE, spec=THEIRS)
                await settled(operator)
            fought, told = cluster.calls.count(("apply", "Service")) - before, unsettled(operator)
            cluster.edit(KLEIN, spec=deployment(autoscaling={"minReplicas": 2, "maxReplicas": 2})["spec"])
            await settled(operator)
            return fought, told, cluster.one("Deployment")["spec"]["replicas"]

    fought, told, replicas = asyncio.run(scenario())
    assert fought == SETTLING_LIMIT + 1
    assert told == 1
    assert replicas == 2, "a changed spec is carried out all the same"


def test_a_spec_that_changes_during_the_look_that_holds_its_object_back_waits_for_nothing():
    async def scenario():
        async def reconcile(key):
            loop.want(key, generation=len(looks))  # As the watch does when somebody changes the spec meanwhile.
            looks.append(key)
            return REPEATED

        looks = []
        loop = ControllerLoop(Controller.DEPLOYMENT, reconcile, OperatorMetrics(), BackOff(first_seconds=60.0, jitter=0.0))
        loop.want(KEY)
        for _ in range(SETTLING_LIMIT + 5):
            key = await asyncio.wait_for(loop.queue.get(), 1)
            await loop.work_on(key)
            loop.queue.done(key)

    asyncio.run(scenario())
