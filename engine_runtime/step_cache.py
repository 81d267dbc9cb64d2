"""Which steps are computed: one small state machine a batch, with a decision of its own for each request.

On a step that is left out, the transformer blocks' last residual is added instead. Source: Liu et al. 2024, arXiv:2411.19108,
"Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model" (TeaCache), with a monotone table in place of the polynomial.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from diffusion_api.recipe import FixedMaskStepCache, MonotoneTable, NoStepCache, StepCachePlan, TeaCacheStepCache
from engine_runtime.arrays import to_numpy
from engine_runtime.pieces import Array

LAST_STEP_COMPUTED_ABOVE = 8
"""Schedules of more steps than this compute their last step too; in shorter ones that would leave nothing to skip."""


class StepCacheDecider(Protocol):
    """Decides for one batch, step by step."""

    def decide(self, step: int, indicator: Array | None) -> npt.NDArray[np.bool_]:
        """Tell for each request [B] whether its step is computed.

        Args:
            step: Index, ascending from 0.
            indicator: The prelude's indicator [B, …]; None where the transformer is one piece.
        """


def interpolate(table: MonotoneTable, x: Array) -> npt.NDArray[np.float64]:
    """Evaluate the table: linear between its points, constant outside, never below 0."""
    values = np.interp(np.asarray(x, dtype=np.float64), table.x, table.y)
    return np.maximum(values, 0.0)


def relative_change(new: Array, old: Array) -> npt.NDArray[np.float64]:
    """Return mean|new − old| / mean|old| of each row [B]."""
    rows = new.shape[0]
    change = to_numpy(abs(new - old).reshape(rows, -1).mean(1)).astype(np.float64)
    size = to_numpy(abs(old).reshape(rows, -1).mean(1)).astype(np.float64)
    return change / np.maximum(size, np.finfo(np.float32).tiny)


class ComputeAll:
    """Every step of every request."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def decide(self, step: int, indicator: Array | None) -> npt.NDArray[np.bool_]:
        """See `StepCacheDecider`."""
        return np.ones(self._batch, dtype=np.bool_)


class FixedMask:
    """The same steps for every request, known ahead."""

    def __init__(self, plan: FixedMaskStepCache, steps: int, batch: int) -> None:
        if len(plan.mask) != steps:
            raise ValueError(f"the step mask has {len(plan.mask)} entries but the schedule {steps} steps; make them agree")
        if not plan.mask[0]:
            raise ValueError("the step mask leaves out the first step, which has no earlier residual to reuse")
        self._mask = plan.mask
        self._batch = batch

    def decide(self, step: int, indicator: Array | None) -> npt.NDArray[np.bool_]:
        """See `StepCacheDecider`."""
        return np.full(self._batch, self._mask[step], dtype=np.bool_)


class TeaCache:
    """Computes a request's step when the expected change since its last computed one reaches the threshold."""

    def __init__(self, plan: TeaCacheStepCache, steps: int, batch: int) -> None:
        self._plan = plan
        self._last = steps - 1 if steps > LAST_STEP_COMPUTED_ABOVE else None
        self._accumulated = np.zeros(batch, dtype=np.float64)
        self._previous: Array | None = None

    def decide(self, step: int, indicator: Array | None) -> npt.NDArray[np.bool_]:
        """See `StepCacheDecider`."""
        if indicator is None:
            raise ValueError("TeaCache needs the indicator of transformer_prelude; this transformer is one piece")
        if self._previous is not None:
            self._accumulated += interpolate(self._plan.table, relative_change(indicator, self._previous))
        forced = self._previous is None or step == self._last
        self._previous = indicator
        # `not below` rather than `at or above`: an indicator of NaN is computed, never reused for ever.
        computed = ~(self._accumulated < self._plan.threshold) | forced
        self._accumulated[computed] = 0.0
        return computed


def step_cache_decider(plan: StepCachePlan, steps: int, batch: int) -> StepCacheDecider:
    """Start the decisions of one batch.

    Raises:
        ValueError: A fixed mask does not fit the schedule; the builder made them, so it is a fault of the engine.
    """
    match plan:
        case NoStepCache():
            return ComputeAll(batch)
        case FixedMaskStepCache():
            return FixedMask(plan, steps, batch)
        case TeaCacheStepCache():
            return TeaCache(plan, steps, batch)
