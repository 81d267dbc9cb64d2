from __future__ import annotations

import asyncio

import pytest

from diffusion_operator.reconciling.work_queue import BackOff, WorkQueue


class Observer:
    def __init__(self):
        self.told = []

    def added(self, depth):
        self.told.append(("added", depth))

    def retried(self):
        self.told.append(("retried",))

    def started(self, depth, waited_seconds):
        self.told.append(("started", depth))

    def finished(self, worked_seconds):
        self.told.append(("finished",))


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), timeout=10))


def test_a_key_waits_once_however_often_it_is_added():
    async def scenario():
        observer = Observer()
        queue = WorkQueue(observer)
        for _ in range(3):
            queue.add("a")
        queue.add("b")
        return await queue.get(), await queue.get(), observer.told

    first, second, told = run(scenario)
    assert (first, second) == ("a", "b")
    assert told == [("added", 1), ("added", 2), ("started", 1), ("started", 0)]


def test_a_key_that_is_worked_on_is_never_given_out_twice_but_once_more_afterwards():
    async def scenario():
        queue = WorkQueue(Observer())
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("b")
        assert await queue.get() == "b"
        queue.done("a")
        return await queue.get()

    assert run(scenario) == "a"


def test_a_failing_key_waits_longer_each_time_until_it_is_forgiven():
    async def scenario():
        queue = WorkQueue(Observer(), BackOff(first_seconds=0.001, longest_seconds=0.01, jitter=0.0))
        waits = []
        for _ in range(6):
            waits.append(queue.add_failed("a"))
            assert await queue.get() == "a"
            queue.done("a")
        assert queue.failures("a") == 6
        queue.forgive("a")
        return waits, queue.add_failed("a"), queue.add_failed("b", longest_seconds=0.0005)

    waits, again, bounded = run(scenario)
    assert waits == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.01, 0.01])
    assert again == 0.001
    assert bounded == 0.0005


def test_of_two_timers_of_a_key_the_earlier_wins():
    async def scenario():
        queue = WorkQueue(Observer())
        queue.add_after("a", 3600)
        queue.add_after("a", 0.001)
        queue.add_after("a", 3600)
        return await queue.get()

    assert run(scenario) == "a"


def test_a_key_that_is_put_off_waits_whatever_was_wanted_before():
    async def scenario():
        queue = WorkQueue(Observer())
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add_after("a", 0.001)
        queue.put_off("a", 0.02)
        queue.done("a")
        queue.add_after("b", 0.01)
        return await queue.get(), await queue.get()

    assert run(scenario) == ("b", "a")


def test_a_stopped_queue_gives_out_nothing_and_lets_every_worker_go():
    async def scenario():
        queue = WorkQueue(Observer())
        workers = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.add("a")
        queue.stop()
        queue.add("b")
        return await asyncio.gather(*workers)

    assert [key for key in run(scenario) if key] in ([], ["a"])


@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_jitter_only_makes_waits_longer(draw):
    back_off = BackOff(first_seconds=1, longest_seconds=8, jitter=0.5)
    assert 8 <= back_off.seconds(100, draw) < 12
