"""Decides the step cache of a recipe: which policy, how far, or off with the reason in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from diffusion_api.build_report import CacheCalibration
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget, StepCache, StepCachePolicy
from diffusion_api.recipe import FixedMaskStepCache, MonotoneTable, NoStepCache, StepCachePlan, TeaCacheStepCache
from engine_builder.errors import InvalidJobError, QualityBudgetError
from engine_builder.evaluation.budget import limits, quality_summary, worst_quality
from engine_builder.evaluation.metrics import PerceptualModels, measure
from engine_builder.evaluation.reference import Generator, Reference, draw
from engine_builder.evaluation.samples import Sample, over_sizes
from engine_builder.step_cache import search
from engine_builder.step_cache.given import Decision, given_step_cache
from engine_builder.step_cache.given import switched_off as _off
from engine_builder.step_cache.masks import FEW_STEPS, step_costs
from engine_builder.step_cache.search import Attempt, Trial, TriedPlan
from engine_builder.step_cache.table import PoorFitError, fit_monotone_table
from engine_builder.step_cache.trajectories import Trajectories, record_trajectories

MIN_GAIN = 0.10
"""Share of a generation's time that a cache must save to be worth its loss of quality and the transformer's three pieces."""
REPORTED_PAIRS = 600


class StepCachePlanner:
    """Plans the step cache of one model; trajectories are recorded only where a policy needs them."""

    def __init__(
        self,
        *,
        schedules: Mapping[str, Sequence[float]],
        budget: QualityBudget,
        body_share: float,
        record: Callable[[], Mapping[str, Trajectories]],
        attempt: Attempt,
    ) -> None:
        """Take what the decision depends on.

        Args:
            schedules: The sigmas of each output size, with the final 0; as many for all.
            budget: What the pictures must hold against the unoptimized model's.
            body_share: Share of a generation's time that the transformer's body takes, in [0, 1].
            record: Draws the calibration samples without cache and returns what was gathered at each size.
            attempt: Draws the evaluation samples with a plan and measures them.
        """
        self._schedules = schedules
        self._steps = len(next(iter(schedules.values()))) - 1
        self._budget = budget
        self._tightened = search.with_margin(budget)
        self._body_share = body_share
        self._record = record
        self._attempt = attempt

    def plan(self, choice: StepCache) -> Decision:
        """Decide.

        Raises:
            InvalidJobError: The job's mask does not fit the schedule, or there is no budget to choose a threshold or mask by.
            QualityBudgetError: A policy was named, and nothing of it holds the budget or its fit is too poor; `Auto` stays off instead.
        """
        if (given := given_step_cache(choice, steps=self._steps, body_share=self._body_share)) is not None:
            return given
        if choice.threshold is not None:
            return self._given_threshold(choice.threshold)
        if choice.policy in (StepCachePolicy.FIXED_MASK, StepCachePolicy.TEA_CACHE) and not self._has_limits():
            raise InvalidJobError("stepCache: with no qualityBudget there is nothing to choose by; give a budget, a threshold or a mask")
        match choice.policy:
            case StepCachePolicy.FIXED_MASK:
                return self._required(self._best_mask(self._record()))
            case StepCachePolicy.TEA_CACHE:
                return self._required(self._best_threshold(self._record()))
            case StepCachePolicy.AUTO:
                return self._automatic()
            case StepCachePolicy.NONE:
                raise AssertionError("`given_step_cache` decides it")

    def _automatic(self) -> Decision:
        if not self._has_limits():
            return _off("the quality budget sets no limit to choose by")
        if self._steps < 2:
            return _off("a schedule of one step has nothing to leave out")
        if self._body_share * (1 - 1 / self._steps) < MIN_GAIN:
            return _off(f"the transformer blocks take only {self._body_share:.0%} of a generation's time")
        trajectories = self._record()
        masked = self._best_mask(trajectories)
        if self._steps <= FEW_STEPS:
            return self._if_worth_it(masked)
        try:
            timed = self._best_threshold(trajectories)
        except QualityBudgetError as refusal:
            plan, calibration = self._if_worth_it(masked)
            return plan, calibration.model_copy(update={"decision": f"{calibration.decision}; no TeaCache: {refusal}"})
        return self._if_worth_it(_better(masked, timed))

    def _given_threshold(self, threshold: float) -> Decision:
        trajectories = self._record()
        table = self._fitted(trajectories)
        tried = search.try_threshold(table, threshold, self._attempt)
        return tried.plan, _calibration([tried], table, trajectories, f"the job names the threshold: {self._words(tried)}")

    def _best_mask(self, trajectories: Mapping[str, Trajectories]) -> tuple[TriedPlan | None, CacheCalibration]:
        """Find one mask for all sizes: its cost is the mean of what it costs at each."""
        costs = np.mean([step_costs(found.drift, self._schedules[size]) for size, found in trajectories.items()], axis=0)
        tried = search.sweep_masks(costs, self._attempt_or_refuse, self._tightened)
        return search.choose_mask(tried, self._tightened), _calibration(tried)

    def _best_threshold(self, trajectories: Mapping[str, Trajectories]) -> tuple[TriedPlan | None, CacheCalibration]:
        table = self._fitted(trajectories)
        tried = search.sweep_thresholds(table, self._attempt_or_refuse, self._tightened)
        return search.choose_threshold(tried, self._tightened), _calibration(tried, table, trajectories)

    def _attempt_or_refuse(self, plan: StepCachePlan) -> Trial:
        """Measure a plan of a sweep; one that leaves out so much that nothing is drawn is outside every budget, no failure of the build."""
        try:
            return self._attempt(plan)
        except QualityBudgetError:
            return Trial(MeasuredQuality(), 0.0)

    def _fitted(self, trajectories: Mapping[str, Trajectories]) -> MonotoneTable:
        try:
            return fit_monotone_table(_pairs(trajectories))
        except PoorFitError as error:
            raise QualityBudgetError(f"TeaCache cannot be calibrated for this model: {error}. Use policy FixedMask or None") from error

    def _required(self, found: tuple[TriedPlan | None, CacheCalibration]) -> Decision:
        chosen, calibration = found
        if chosen is None:
            measured = [*calibration.sweep, *calibration.masks]
            reached = ", ".join(f"{skip:.0%} left out: {psnr:.1f} dB" for _, skip, psnr in measured)
            raise QualityBudgetError(f"no step can be left out inside the quality budget ({reached}); relax it, or use policy None")
        return chosen.plan, calibration.model_copy(update={"decision": self._words(chosen)})

    def _if_worth_it(self, found: tuple[TriedPlan | None, CacheCalibration]) -> Decision:
        chosen, calibration = found
        if chosen is None:
            return _off("no step can be left out inside the quality budget", calibration)
        saved = chosen.trial.skip_ratio * self._body_share
        if saved < MIN_GAIN:
            return _off(f"it saves {saved:.1%} of a generation's time, less than {MIN_GAIN:.0%}", calibration)
        return chosen.plan, calibration.model_copy(update={"decision": self._words(chosen)})

    def _words(self, tried: TriedPlan) -> str:
        saved = tried.trial.skip_ratio * self._body_share
        return f"{tried.plan.label}: saves {saved:.0%} of a generation's time at {quality_summary(tried.trial.quality, self._budget)}"

    def _has_limits(self) -> bool:
        return bool(limits(MeasuredQuality(), self._budget))


def plan_step_cache(
    choice: StepCache,
    engine_with: Callable[[StepCachePlan], Generator],
    *,
    schedules: Mapping[str, Sequence[float]],
    calibration: Sequence[Sample],
    references: Sequence[Reference],
    budget: QualityBudget,
    body_share: float,
    models: PerceptualModels | None = None,
    batch_size: int = 8,
) -> Decision:
    """Calibrate and decide the step cache of a model.

    Quality is that of the whole recipe: `engine_with` yields the model as the recipe quantizes it, and `reference` is the unoptimized
    model's, so the combination of cache and quantization stays inside one budget.

    Args:
        choice: What the job asks for.
        engine_with: Yields the engine, its transformer in three pieces, with a step-cache plan.
        schedules: The sigmas of each output size, with the final 0; as many for all.
        calibration: Samples that the table and the masks are fitted on, dealt out to the sizes in turns.
        references: The unoptimized model's pictures of the evaluation samples at each size; of each metric, the worst size's counts.
        budget: Limits.
        body_share: Share of a generation's time that the transformer's body takes, in [0, 1].
        models: Weights for LPIPS and CLIP, where the budget limits them.
        batch_size: As the references were drawn with.

    Raises:
        InvalidJobError: See `StepCachePlanner.plan`.
        QualityBudgetError: See there; or the model draws nothing.
    """

    def attempt(plan: StepCachePlan) -> Trial:
        engine = engine_with(plan)
        drawings = [draw(engine, reference.samples, size=reference.size, batch_size=batch_size) for reference in references]
        qualities = [
            measure(reference.pictures, drawing.pictures, budget, prompts=reference.prompts, models=models or PerceptualModels())
            for reference, drawing in zip(references, drawings, strict=True)
        ]
        return Trial(worst_quality(qualities), fmean(drawing.skip_ratio for drawing in drawings))

    def record() -> dict[str, Trajectories]:
        engine = engine_with(NoStepCache())
        dealt = over_sizes(calibration, tuple(schedules))
        return {size: record_trajectories(engine, samples, size=size, batch_size=batch_size) for size, samples in dealt}

    return StepCachePlanner(schedules=schedules, budget=budget, body_share=body_share, record=record, attempt=attempt).plan(choice)


def _better(
    masked: tuple[TriedPlan | None, CacheCalibration], timed: tuple[TriedPlan | None, CacheCalibration]
) -> tuple[TriedPlan | None, CacheCalibration]:
    """Return what leaves out more steps; a mask where equal, for it needs no indicator. Both sweeps go into the report."""
    first, second = masked[0], timed[0]
    calibration = timed[1].model_copy(update={"masks": masked[1].masks})
    if first is None or (second is not None and second.trial.skip_ratio > first.trial.skip_ratio):
        return second, calibration
    return first, calibration


def _calibration(
    tried: Sequence[TriedPlan],
    table: MonotoneTable | None = None,
    trajectories: Mapping[str, Trajectories] | None = None,
    decision: str = "",
) -> CacheCalibration:
    measured = [(each.plan, each.trial.skip_ratio, each.trial.quality.psnr or 0.0) for each in tried]
    return CacheCalibration(
        table=table,
        pairs=() if trajectories is None else _evenly(_pairs(trajectories)),
        sweep=tuple((plan.threshold, skip, psnr) for plan, skip, psnr in measured if isinstance(plan, TeaCacheStepCache)),
        masks=tuple((_bits(plan.mask), skip, psnr) for plan, skip, psnr in measured if isinstance(plan, FixedMaskStepCache)),
        decision=decision,
    )


def _pairs(trajectories: Mapping[str, Trajectories]) -> NDArray[np.float64]:
    return np.concatenate([found.pairs for found in trajectories.values()])


def _evenly(pairs: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    stride = -(-len(pairs) // REPORTED_PAIRS)
    return tuple((float(x), float(y)) for x, y in pairs[:: max(stride, 1)])


def _bits(mask: Sequence[bool]) -> str:
    return "".join("1" if step else "0" for step in mask)
