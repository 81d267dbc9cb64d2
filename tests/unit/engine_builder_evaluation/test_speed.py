from __future__ import annotations

import pytest

from engine_builder.evaluation.speed import compare_latency, latencies_in_turns, measure_latency


class FakeMachine:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []

    def work(self, name: str, seconds: float):
        def run(seed: int) -> None:
            self.calls.append((name, seed))
            self.now += seconds * (10 if seed == 0 else 1)

        return run


def test_two_variants_are_measured_in_turns_with_equal_seeds() -> None:
    machine = FakeMachine()
    compare_latency(machine.work("a", 0.1), machine.work("b", 0.05), repeats=2, clock=lambda: machine.now)
    assert machine.calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_any_number_of_variants_takes_turns() -> None:
    machine = FakeMachine()
    variants = [machine.work(name, seconds) for name, seconds in (("a", 0.1), ("b", 0.05), ("c", 0.02))]
    found = latencies_in_turns(variants, repeats=2, clock=lambda: machine.now)
    assert [name for name, _ in machine.calls] == list("abcabcabc")
    assert [round(latency.median_ms) for latency in found] == [100, 50, 20]


def test_the_warm_up_does_not_count() -> None:
    machine = FakeMachine()
    comparison = compare_latency(machine.work("a", 0.1), machine.work("b", 0.05), repeats=4, clock=lambda: machine.now)
    assert comparison.unoptimized.median_ms == pytest.approx(100)
    assert comparison.unoptimized.p95_ms == pytest.approx(100)
    assert comparison.optimized.repeats == 4
    assert comparison.speedup == pytest.approx(2)


@pytest.mark.parametrize(("budget_seconds", "repeats"), [(100.0, 15), (40.0, 10), (1.0, 3)])
def test_a_slow_model_is_measured_less_often_but_three_times(budget_seconds, repeats):
    machine = FakeMachine()
    comparison = compare_latency(
        machine.work("a", 1.0), machine.work("b", 1.0), 15, at_least=3, budget_seconds=budget_seconds, warm_up=1, clock=lambda: machine.now
    )
    assert comparison.unoptimized.repeats == comparison.optimized.repeats == repeats


def test_a_measurement_needs_a_repeat() -> None:
    with pytest.raises(ValueError, match="at least once"):
        measure_latency(lambda seed: None, repeats=0)
