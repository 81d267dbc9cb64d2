from __future__ import annotations

import numpy as np
import pytest

from engine_builder.step_cache.table import MAX_KNOTS, PoorFitError, fit_monotone_table
from engine_runtime.step_cache import interpolate

RANDOM = np.random.default_rng(0)


def pairs(noise: float = 0.02, count: int = 400):
    x = RANDOM.uniform(0.01, 0.5, count)
    return np.stack([x, np.sqrt(x) + RANDOM.normal(0, noise, count)], axis=1)


def test_the_table_follows_the_pairs() -> None:
    table = fit_monotone_table(pairs())
    assert table.r_squared > 0.95
    assert table.samples == 400
    assert interpolate(table, np.array([0.25])) == pytest.approx(0.5, abs=0.03)


def test_the_table_never_falls_and_never_turns_negative() -> None:
    data = pairs(noise=0.1)
    data[:, 1] -= 0.2
    table = fit_monotone_table(data)
    assert len(table.x) <= MAX_KNOTS
    assert (np.diff(table.x) > 0).all()
    assert (np.diff(table.y) >= 0).all()
    assert min(table.y) >= 0


def test_the_table_is_constant_beyond_what_it_was_fitted_on() -> None:
    table = fit_monotone_table(pairs())
    assert interpolate(table, np.array([0.0, 9.0])).tolist() == [table.y[0], table.y[-1]]


def test_the_same_pairs_give_the_same_table() -> None:
    data = pairs()
    assert fit_monotone_table(data) == fit_monotone_table(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pairs(count=63), "63 pairs"),
        (RANDOM.uniform(size=(200, 2)), r"R² of the fit is"),
        (np.stack([np.full(100, 0.3), RANDOM.uniform(size=100)], axis=1), "predicts nothing"),
        (np.stack([RANDOM.uniform(size=100), np.full(100, 0.3)], axis=1), r"R² of the fit is"),
        (np.full((100, 2), np.nan), "NaN"),
    ],
)
def test_a_bad_fit_is_refused_with_its_reason(data, reason: str) -> None:
    with pytest.raises(PoorFitError, match=reason):
        fit_monotone_table(data)
