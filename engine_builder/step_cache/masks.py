"""Fixed masks: which steps to compute, foreseen from how the residual drifts along calibration trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from diffusion_api.recipe import FixedMaskStepCache

Mask = tuple[bool, ...]

FEW_STEPS = 8
"""Schedules up to this long are searched mask by mask; longer ones by the best mask of each length."""

EARLY_WEIGHT = 3.0


def step_costs(drift: NDArray[np.float64], sigmas: Sequence[float]) -> NDArray[np.float64]:
    """Return cost[i, j]: the error that step i adds to the picture when it reuses the residual of step j.

    The residual's relative error moves the latent by its share of the step's stride, |sigma_i − sigma_(i+1)| × drift[i, j], and what
    is moved early leads every later step astray: × (1 + 3 sigma_i). On a 28-step FLUX.2 with guidance that factor is worth 0.5 to
    2.7 dB at equal length.

    Args:
        drift: [steps, steps], see `Trajectories.drift`.
        sigmas: Noise levels with the final 0: one more than steps.
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    strides = np.abs(np.diff(levels))
    if drift.shape != (len(strides), len(strides)):
        raise ValueError(f"drift of shape {drift.shape} does not fit a schedule of {len(strides)} steps")
    return np.asarray(drift * (strides * (1 + EARLY_WEIGHT * levels[:-1]))[:, None])


def mask_cost(mask: Mask, costs: NDArray[np.float64]) -> float:
    """Return the sum of the costs of the steps that a mask leaves out."""
    total, last = 0.0, 0
    for step, is_computed in enumerate(mask):
        if is_computed:
            last = step
        else:
            total += float(costs[step, last])
    return total


def best_masks(costs: NDArray[np.float64]) -> list[Mask]:
    """Return for each number of computed steps, from 1 to all, the mask of least cost.

    Dynamic programming over the last computed step: exact, O(steps³).
    """
    steps = len(costs)
    # gap[j, k]: cost of leaving out the steps between computed steps j and k (k = steps: to the end).
    gap = np.full((steps, steps + 1), np.inf)
    for j in range(steps):
        gap[j, j + 1 :] = np.concatenate(([0.0], np.cumsum(costs[j + 1 :, j])))
    reach = np.full(steps, np.inf)
    reach[0] = 0.0
    came_from: list[NDArray[np.intp]] = []
    masks = [_mask([0], steps)]
    for _ in range(1, steps):
        through = reach[:, None] + gap[:, :steps]
        came_from.append(through.argmin(axis=0))
        reach = through.min(axis=0)
        last = int((reach + gap[:, steps]).argmin())
        masks.append(_mask(_walk_back(last, came_from), steps))
    return masks


def masks_of(computed: int, costs: NDArray[np.float64], *, limit: int) -> list[Mask]:
    """Return masks with a number of computed steps, the first among them, in order of cost and at most `limit`; few steps only."""
    steps = len(costs)
    every = [_mask([0, *rest], steps) for rest in combinations(range(1, steps), computed - 1)]
    return sorted(every, key=lambda mask: (mask_cost(mask, costs), mask))[:limit]


def fixed_mask(mask: Mask) -> FixedMaskStepCache:
    """Return the mask as a plan."""
    return FixedMaskStepCache(mask=mask)


def _walk_back(last: int, came_from: Sequence[NDArray[np.intp]]) -> list[int]:
    computed = [last]
    for origins in reversed(came_from):
        computed.append(int(origins[computed[-1]]))
    return computed


def _mask(computed: Sequence[int], steps: int) -> Mask:
    return tuple(step in computed for step in range(steps))
