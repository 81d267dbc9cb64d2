from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from engine_builder.step_cache.masks import best_masks, mask_cost, masks_of, step_costs

RANDOM = np.random.default_rng(0)
COSTS = RANDOM.uniform(size=(7, 7))


def every_mask(steps: int):
    return [(True, *rest) for rest in product((True, False), repeat=steps - 1)]


@pytest.mark.parametrize("computed", range(1, 8))
def test_the_best_mask_of_each_length_is_the_one_that_enumeration_finds(computed: int) -> None:
    (best,) = best_masks(COSTS)[computed - 1 : computed]
    assert sum(best) == computed
    assert best[0]
    assert mask_cost(best, COSTS) == pytest.approx(min(mask_cost(m, COSTS) for m in every_mask(7) if sum(m) == computed))
    assert masks_of(computed, COSTS, limit=1) == [best]


def test_masks_come_in_order_of_cost() -> None:
    masks = masks_of(3, COSTS, limit=100)
    costs = [mask_cost(mask, COSTS) for mask in masks]
    assert len(masks) == 15
    assert costs == sorted(costs)


def test_a_mask_that_computes_all_costs_nothing() -> None:
    assert mask_cost((True,) * 7, COSTS) == 0


def test_a_long_stride_costs_more_than_a_short_one() -> None:
    drift = np.full((3, 3), 0.5)
    costs = step_costs(drift, (1.0, 0.9, 0.2, 0.0))
    assert costs[1, 0] > costs[2, 0] > 0


def test_a_schedule_of_other_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 steps"):
        step_costs(np.zeros((2, 2)), (1.0, 0.5, 0.2, 0.0))
