"""Wall-clock latency of a generation, and two of them compared in one run on one machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from diffusion_api.build_report import Comparison, Latency

Generate = Callable[[int], object]
"""Draws once; the argument is the seed, so that no repeat is answered from a cache."""
Clock = Callable[[], float]
"""Seconds; only differences count."""


def measure_latency(generate: Generate, repeats: int, *, warm_up: int = 1, clock: Clock = time.perf_counter) -> Latency:
    """Time `repeats` generations after `warm_up` unmeasured ones."""
    (latency,) = latencies_in_turns((generate,), repeats, at_least=repeats, warm_up=warm_up, clock=clock)
    return latency


def compare_latency(
    unoptimized: Generate,
    optimized: Generate,
    repeats: int,
    *,
    at_least: int = 1,
    budget_seconds: float = math.inf,
    warm_up: int = 1,
    clock: Clock = time.perf_counter,
) -> Comparison:
    """Time both in turns (A B A B …), so that a machine that slows down meanwhile slows both.

    Args:
        unoptimized: What is compared with.
        optimized: What is compared.
        repeats: Measured turns, unless time runs out.
        at_least: Measured turns even then.
        budget_seconds: No further turn begins after so long, the warm-up included.
        warm_up: Turns before, which do not count.
        clock: For tests.
    """
    limits = {"at_least": at_least, "warm_up": warm_up}
    first, second = latencies_in_turns((unoptimized, optimized), repeats, **limits, budget_seconds=budget_seconds, clock=clock)
    return Comparison(unoptimized=first, optimized=second)


def latencies_in_turns(
    variants: Sequence[Generate],
    repeats: int,
    *,
    at_least: int = 1,
    budget_seconds: float = math.inf,
    warm_up: int = 1,
    clock: Clock = time.perf_counter,
) -> list[Latency]:
    """Time any number of variants in turns; see `compare_latency`."""
    if not 1 <= at_least <= repeats:
        raise ValueError(f"between {at_least} and {repeats} repeats; measure at least once")
    seconds: list[list[float]] = [[] for _ in variants]
    started = clock()
    for turn in range(warm_up + repeats):
        if turn >= warm_up + at_least and clock() - started >= budget_seconds:
            break
        for variant, measured in zip(variants, seconds, strict=True):
            begin = clock()
            variant(turn)
            measured.append(clock() - begin)
    return [_summary(measured[warm_up:]) for measured in seconds]


def _summary(seconds: list[float]) -> Latency:
    median, p95 = np.percentile(np.array(seconds) * 1000, (50, 95))
    return Latency(median_ms=float(median), p95_ms=float(p95), repeats=len(seconds))
