"""Claims about the step cache's decisions."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_api.recipe import FixedMaskStepCache, MonotoneTable, NoStepCache, TeaCacheStepCache
from engine_runtime.step_cache import interpolate, relative_change, step_cache_decider

TABLE = MonotoneTable(x=(0.1, 0.2, 0.4), y=(0.05, 0.2, 0.3), r_squared=0.9, samples=10)
STEEP = MonotoneTable(x=(0.0, 1.0), y=(0.0, 1.0), r_squared=1.0, samples=2)


def indicators(*changes: float) -> list[np.ndarray]:
    """Indicators of one request whose relative changes are those given."""
    values = [1.0]
    for change in changes:
        values.append(values[-1] * (1 + change))
    return [np.array([[value, -value]]) for value in values]


def decisions(plan, sequence) -> list[bool]:
    decider = step_cache_decider(plan, len(sequence), 1)
    return [bool(decider.decide(step, indicator)[0]) for step, indicator in enumerate(sequence)]


def test_the_table_is_linear_inside_and_constant_outside():
    np.testing.assert_allclose(interpolate(TABLE, np.array([0.0, 0.1, 0.15, 0.3, 9.0])), [0.05, 0.05, 0.125, 0.25, 0.3])


def test_the_table_never_lets_the_accumulator_shrink():
    falling = TABLE.model_copy(update={"y": (-1.0, 0.2, 0.3)})
    assert interpolate(falling, np.array([0.0])).min() == 0


def test_change_is_relative_to_the_earlier_indicator():
    np.testing.assert_allclose(relative_change(np.array([[3.0, 3.0]]), np.array([[2.0, -2.0]])), [1.5])


def test_without_a_cache_every_step_is_computed():
    assert decisions(NoStepCache(), indicators(0, 0, 0)) == [True] * 4


def test_a_fixed_mask_is_followed():
    assert decisions(FixedMaskStepCache(mask=(True, False, True)), indicators(0, 0)) == [True, False, True]


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 entries but the schedule 3 steps"):
        step_cache_decider(FixedMaskStepCache(mask=(True, False)), 3, 1)


def test_a_mask_that_leaves_out_the_first_step_is_refused():
    with pytest.raises(ValueError, match="first step"):
        step_cache_decider(FixedMaskStepCache(mask=(False, True)), 2, 1)


def test_changes_add_up_until_the_threshold():
    plan = TeaCacheStepCache(table=STEEP, threshold=0.25)
    assert decisions(plan, indicators(0.1, 0.1, 0.1, 0.1, 0.2)) == [True, False, False, True, False, True]


def test_a_threshold_of_zero_computes_every_step():
    assert decisions(TeaCacheStepCache(table=STEEP, threshold=0.0), indicators(0, 0, 0)) == [True] * 4


def test_the_last_step_of_a_long_schedule_is_computed():
    plan = TeaCacheStepCache(table=STEEP, threshold=10.0)
    assert decisions(plan, indicators(*[0.0] * 8)) == [True, *[False] * 7, True]
    assert decisions(plan, indicators(*[0.0] * 7)) == [True, *[False] * 7]


def test_an_indicator_of_nan_is_computed():
    plan = TeaCacheStepCache(table=STEEP, threshold=10.0)
    assert decisions(plan, [np.array([[1.0]]), np.array([[np.nan]]), np.array([[1.0]])]) == [True, True, True]


def test_teacache_says_that_it_needs_the_prelude():
    with pytest.raises(ValueError, match="transformer_prelude"):
        step_cache_decider(TeaCacheStepCache(table=STEEP, threshold=1.0), 2, 1).decide(0, None)
