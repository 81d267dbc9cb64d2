"""What is timed against what, in which order, and which speed keeps an engine from being published."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_api.build_report import Comparison, Latency
from engine_builder.workflow import verification
from engine_builder.workflow.verification import too_slow


def comparison(unoptimized: float, optimized: float, without: float | None = None) -> Comparison:
    slow, fast, plain = (None if ms is None else Latency(median_ms=ms, p95_ms=ms, repeats=3) for ms in (unoptimized, optimized, without))
    assert slow is not None
    assert fast is not None
    return Comparison(unoptimized=slow, optimized=fast, without_step_cache=plain)


@pytest.mark.parametrize(
    ("measured", "automatic", "said"),
    [
        (comparison(100, 50), True, []),
        (comparison(100, 50, 60), True, []),
        (comparison(100, 50, 54), True, ["the step cache saves 7.4% of a generation's time on the engine, less than 10%"]),
        (comparison(100, 50, 45), True, ["the step cache saves nothing on the engine, less than 10%"]),
        (comparison(100, 50, 54), False, []),
        (comparison(100, 100), True, ["the engine is not faster than the unoptimized model (1.00×)"]),
    ],
    ids=["no cache", "gains", "gains little", "slower", "named by the job", "slow"],
)
def test_an_engine_must_be_faster_and_so_must_a_step_cache_that_nobody_named(measured, automatic, said):
    assert too_slow(measured, simulated=False, automatic_cache=automatic) == said


def test_the_speed_of_a_simulated_format_means_nothing_and_that_of_its_step_cache_does():
    assert len(too_slow(comparison(50, 100, 101), simulated=True, automatic_cache=True)) == 1


class Memory:
    """Writes down which engines are loaded, run and released."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.samples = SimpleNamespace(evaluation=[SimpleNamespace(prompt="a")])
        self.job = SimpleNamespace(shapes=[SimpleNamespace(name="64x64")])

    def release(self) -> None:
        self.log.append("release")

    def maker(self, name: str) -> Any:
        def load() -> Any:
            self.log.append(f"load {name}")
            return SimpleNamespace(generate=lambda _: self.log.append(name))

        return load


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(verification, "LATENCY_REPEATS", 1)
    monkeypatch.setattr(verification, "MIN_LATENCY_REPEATS", 1)
    return Memory()


def test_what_fits_together_is_timed_in_turns(context):
    verification._time_in_turns(context, [context.maker("engine"), context.maker("model")])
    assert context.log == ["load engine", "load model", "engine", "model", "engine", "model"]


def test_what_does_not_fit_together_is_loaded_when_the_other_is_gone(context):
    verification._time_one_by_one(context, [context.maker("engine"), context.maker("model")])
    assert context.log == ["load engine", "engine", "engine", "release", "load model", "model", "model", "release"]
