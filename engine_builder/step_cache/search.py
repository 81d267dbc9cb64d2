"""Finds the largest threshold, or the mask of fewest steps, whose pictures stay inside the quality budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget
from diffusion_api.recipe import FixedMaskStepCache, MonotoneTable, StepCachePlan, TeaCacheStepCache
from engine_builder.evaluation.budget import within_budget
from engine_builder.step_cache.masks import FEW_STEPS, Mask, best_masks, masks_of

THRESHOLDS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
BISECTIONS = 4
MASKS_PER_LENGTH = 3
PSNR_MARGIN_DB = 0.5
"""The choice lies at the edge of the budget by design; the compiled engine rounds a little differently and must not fall over it."""


@dataclass(frozen=True)
class Trial:
    """What a step cache cost and saved on the evaluation samples."""

    quality: MeasuredQuality
    skip_ratio: float
    """Share of steps left out."""


@dataclass(frozen=True)
class TriedPlan:
    """A plan with its trial."""

    plan: TeaCacheStepCache | FixedMaskStepCache
    trial: Trial


Attempt = Callable[[StepCachePlan], Trial]
"""Draws the evaluation samples with a plan and measures them against the reference of the *unoptimized* model.

Where the transformer is quantized, the attempt draws with the quantized one: cache and quantization share one budget.
"""


def with_margin(budget: QualityBudget) -> QualityBudget:
    """Return the budget tightened by the margin that a choice at its edge needs."""
    return budget if budget.min_psnr is None else budget.model_copy(update={"min_psnr": min(budget.min_psnr + PSNR_MARGIN_DB, 100.0)})


def sweep_thresholds(table: MonotoneTable, attempt: Attempt, budget: QualityBudget) -> list[TriedPlan]:
    """Try thresholds upwards until one leaves the budget, then bisect between the last inside and the first outside.

    Returns:
        What was tried, by ascending threshold.
    """
    tried: list[TriedPlan] = []
    inside = 0.0
    outside: float | None = None
    for threshold in THRESHOLDS:
        tried.append(try_threshold(table, threshold, attempt))
        if within_budget(tried[-1].trial.quality, budget):
            outside = threshold
            break
        inside = threshold
    for _ in range(BISECTIONS if outside is not None else 0):
        assert outside is not None
        middle = float(f"{(inside + outside) / 2:.4g}")
        tried.append(try_threshold(table, middle, attempt))
        if within_budget(tried[-1].trial.quality, budget):
            outside = middle
        else:
            inside = middle
    return sorted(tried, key=_threshold)


def choose_threshold(tried: Sequence[TriedPlan], budget: QualityBudget) -> TriedPlan | None:
    """Return the largest threshold inside the budget that leaves any step out, or None.

    Among thresholds that leave out equally many steps the one of best PSNR is as large as any.
    """
    inside = [each for each in tried if each.trial.skip_ratio > 0 and not within_budget(each.trial.quality, budget)]
    return max(inside, key=lambda each: (each.trial.skip_ratio, each.trial.quality.psnr or 0.0, _threshold(each)), default=None)


def try_threshold(table: MonotoneTable, threshold: float, attempt: Attempt) -> TriedPlan:
    """Measure one threshold; the plan returned carries its skip ratio."""
    plan = TeaCacheStepCache(table=table, threshold=threshold)
    trial = attempt(plan)
    return TriedPlan(plan.model_copy(update={"skip_ratio": trial.skip_ratio}), trial)


def sweep_masks(costs: NDArray[np.float64], attempt: Attempt, budget: QualityBudget) -> list[TriedPlan]:
    """Try masks by ascending number of computed steps until one is inside the budget.

    Few-step schedules: the three likeliest masks of each number, fewest first. Longer ones: the best mask of each number, bisected.

    Returns:
        What was tried, fewest computed steps first.
    """
    if len(costs) <= FEW_STEPS:
        return _sweep_few(costs, attempt, budget)
    masks = best_masks(costs)
    tried: dict[int, TriedPlan] = {}
    low, high = 0, len(masks) - 1  # masks[high] computes every step and is inside by definition.
    while low < high:
        middle = (low + high) // 2
        tried[middle] = _try_mask(masks[middle], attempt)
        if within_budget(tried[middle].trial.quality, budget):
            low = middle + 1
        else:
            high = middle
    return [tried[index] for index in sorted(tried)]


def choose_mask(tried: Sequence[TriedPlan], budget: QualityBudget) -> TriedPlan | None:
    """Return the mask inside the budget that leaves out most steps, among equals the one of best PSNR; or None."""
    inside = [each for each in tried if not within_budget(each.trial.quality, budget)]
    return max(inside, key=lambda each: (each.trial.skip_ratio, each.trial.quality.psnr or 0.0), default=None)


def _sweep_few(costs: NDArray[np.float64], attempt: Attempt, budget: QualityBudget) -> list[TriedPlan]:
    tried: list[TriedPlan] = []
    for computed in range(1, len(costs)):
        tried += [_try_mask(mask, attempt) for mask in masks_of(computed, costs, limit=MASKS_PER_LENGTH)]
        if choose_mask(tried, budget) is not None:
            break
    return tried


def _try_mask(mask: Mask, attempt: Attempt) -> TriedPlan:
    plan = FixedMaskStepCache(mask=mask)
    return TriedPlan(plan, attempt(plan))


def _threshold(tried: TriedPlan) -> float:
    return tried.plan.threshold if isinstance(tried.plan, TeaCacheStepCache) else 0.0
