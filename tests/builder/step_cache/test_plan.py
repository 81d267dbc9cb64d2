"""The decision over a model of what pictures lose: PSNR falls with the share of steps that is left out."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget, StepCache, StepCachePolicy
from diffusion_api.recipe import FixedMaskStepCache, NoStepCache, TeaCacheStepCache
from engine_builder.errors import InvalidJobError, QualityBudgetError
from engine_builder.step_cache.plan import StepCachePlanner
from engine_builder.step_cache.search import PSNR_MARGIN_DB, Trial
from engine_builder.step_cache.trajectories import Trajectories

BUDGET = QualityBudget(min_psnr=40)


class Bench:
    """Stands for a model; `table_is_better` makes a threshold lose less than a mask of equal length."""

    def __init__(self, steps: int, *, good_fit: bool = True, loss_db: float = 40.0, table_is_better: float = 0.0) -> None:
        random = np.random.default_rng(0)
        x = random.uniform(0, 1, 200)
        pairs = np.stack([x, x if good_fit else random.uniform(0, 1, 200)], axis=1)
        self.steps, self.loss_db, self.table_is_better = steps, loss_db, table_is_better
        drift = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps))) / steps
        self.trajectories = {"64x64": Trajectories(pairs, drift)}
        self.tried: list[object] = []

    def attempt(self, plan) -> Trial:
        self.tried.append(plan)
        match plan:
            case FixedMaskStepCache():
                skip, loss = 1 - sum(plan.mask) / self.steps, self.loss_db
            case TeaCacheStepCache():
                skip, loss = min(plan.threshold / 2, 0.9), self.loss_db - self.table_is_better
        return Trial(MeasuredQuality(psnr=60 - loss * skip), skip)

    def planner(self, budget: QualityBudget = BUDGET, body_share: float = 0.9) -> StepCachePlanner:
        sigmas = np.linspace(1, 0, self.steps + 1).tolist()
        schedules = dict.fromkeys(self.trajectories, sigmas)
        return StepCachePlanner(
            schedules=schedules, budget=budget, body_share=body_share, record=lambda: self.trajectories, attempt=self.attempt
        )


def test_few_steps_take_the_shortest_mask_inside_the_budget() -> None:
    bench = Bench(4, loss_db=30)
    plan, calibration = bench.planner().plan(StepCache())
    assert isinstance(plan, FixedMaskStepCache)
    assert sum(plan.mask) == 2
    assert calibration.masks[0][0] == "1000"
    assert "saves 45%" in calibration.decision


def test_a_mask_that_draws_nothing_is_outside_the_budget_and_ends_no_build() -> None:
    bench = Bench(4, loss_db=30)

    def attempt(plan) -> Trial:
        if isinstance(plan, FixedMaskStepCache) and sum(plan.mask) == 1:
            raise QualityBudgetError("the model draws nothing")
        return Bench.attempt(bench, plan)

    bench.attempt = attempt  # type: ignore[method-assign]
    plan, _ = bench.planner().plan(StepCache())
    assert isinstance(plan, FixedMaskStepCache)
    assert sum(plan.mask) == 2


def test_a_cache_that_gains_less_than_10_percent_stays_off_and_says_so() -> None:
    plan, calibration = Bench(4, loss_db=70).planner(body_share=0.3).plan(StepCache())
    assert plan == NoStepCache(reason="it saves 7.5% of a generation's time, less than 10%")
    assert calibration.decision.startswith("off: ")


def test_nothing_is_measured_where_the_blocks_take_too_little_time_to_gain() -> None:
    bench = Bench(4)
    plan, _ = bench.planner(body_share=0.1).plan(StepCache())
    assert isinstance(plan, NoStepCache)
    assert bench.tried == []


def test_a_budget_that_no_skipped_step_holds_keeps_the_cache_off() -> None:
    plan, calibration = Bench(4, loss_db=200).planner().plan(StepCache())
    assert isinstance(plan, NoStepCache)
    assert len(calibration.masks) == 7


def test_many_steps_take_the_table_where_it_leaves_out_more() -> None:
    plan, calibration = Bench(28, table_is_better=5).planner().plan(StepCache())
    assert isinstance(plan, TeaCacheStepCache)
    assert plan.skip_ratio == pytest.approx((60 - 40 - PSNR_MARGIN_DB) / 35, abs=0.06)
    assert calibration.table == plan.table
    assert calibration.masks
    assert len(calibration.pairs) == 200


def test_many_steps_take_a_mask_where_it_leaves_out_more() -> None:
    plan, _ = Bench(28, table_is_better=-10).planner().plan(StepCache())
    assert isinstance(plan, FixedMaskStepCache)


def test_a_bad_fit_is_refused_and_a_mask_serves() -> None:
    plan, calibration = Bench(28, good_fit=False).planner().plan(StepCache())
    assert isinstance(plan, FixedMaskStepCache)
    assert "R² of the fit is" in calibration.decision


def test_the_choice_keeps_a_margin_to_the_budget() -> None:
    bench = Bench(28, table_is_better=5)
    plan, calibration = bench.planner().plan(StepCache())
    chosen = {threshold: psnr for threshold, _, psnr in calibration.sweep}[plan.threshold]
    assert chosen >= 40 + PSNR_MARGIN_DB


def test_the_sweep_goes_upwards_and_stops_soon_after_the_budget_is_left() -> None:
    _, calibration = Bench(28, table_is_better=5).planner().plan(StepCache(policy=StepCachePolicy.TEA_CACHE))
    thresholds = [threshold for threshold, _, _ in calibration.sweep]
    assert thresholds == sorted(thresholds)
    assert len(thresholds) <= 11


def test_the_same_model_gets_the_same_plan() -> None:
    assert Bench(28).planner().plan(StepCache()) == Bench(28).planner().plan(StepCache())


def test_a_named_threshold_is_used_as_it_is_but_measured() -> None:
    plan, calibration = Bench(28).planner().plan(StepCache(policy=StepCachePolicy.TEA_CACHE, threshold=1.4))
    assert isinstance(plan, TeaCacheStepCache)
    assert (plan.threshold, plan.skip_ratio) == (1.4, 0.7)
    assert calibration.sweep == ((1.4, 0.7, pytest.approx(32)),)


def test_a_named_mask_is_used_as_it_is_and_left_to_the_verification_to_measure() -> None:
    bench = Bench(4)
    plan, calibration = bench.planner().plan(StepCache(policy=StepCachePolicy.FIXED_MASK, mask=(True, False, False, True)))
    assert plan == FixedMaskStepCache(mask=(True, False, False, True))
    assert "saves 45% of a generation's time" in calibration.decision
    assert bench.tried == []


def test_table_and_masks_are_fitted_on_all_sizes() -> None:
    bench = Bench(28)
    (found,) = bench.trajectories.values()
    bench.trajectories["96x64"] = Trajectories(found.pairs[:100], found.drift)
    plan, _ = bench.planner().plan(StepCache(policy=StepCachePolicy.TEA_CACHE, threshold=0.5))
    assert isinstance(plan, TeaCacheStepCache)
    assert plan.table.samples == 300
    # Steps 1 to 3 are free to leave out at one size and cost at the other; at both, step 3 costs least.
    few = Bench(4)
    free, dear = np.zeros((4, 4)), np.tile([[0.0], [9.0], [9.0], [0.1]], 4)
    few.trajectories = {"64x64": Trajectories(np.zeros((0, 2)), free), "96x64": Trajectories(np.zeros((0, 2)), dear)}
    few.planner(QualityBudget(min_psnr=45)).plan(StepCache(policy=StepCachePolicy.FIXED_MASK))
    three = [plan.mask for plan in few.tried if isinstance(plan, FixedMaskStepCache) and sum(plan.mask) == 3]
    assert three[0] == (True, True, True, False)


def test_a_mask_of_the_wrong_length_is_a_fault_of_the_job() -> None:
    with pytest.raises(InvalidJobError, match="2 entries but the schedule 4 steps"):
        Bench(4).planner().plan(StepCache(policy=StepCachePolicy.FIXED_MASK, mask=(True, False)))


def test_a_named_policy_is_not_silently_dropped() -> None:
    with pytest.raises(QualityBudgetError, match=r"no step can be left out .*75% left out: -90\.0 dB"):
        Bench(4, loss_db=200).planner().plan(StepCache(policy=StepCachePolicy.FIXED_MASK))
    with pytest.raises(QualityBudgetError, match="cannot be calibrated"):
        Bench(28, good_fit=False).planner().plan(StepCache(policy=StepCachePolicy.TEA_CACHE))


def test_without_limits_there_is_nothing_to_choose_by() -> None:
    planner = Bench(28).planner(budget=QualityBudget())
    assert isinstance(planner.plan(StepCache())[0], NoStepCache)
    with pytest.raises(InvalidJobError, match="nothing to choose by"):
        planner.plan(StepCache(policy=StepCachePolicy.TEA_CACHE))


def test_a_job_that_turns_it_off_measures_nothing() -> None:
    bench = Bench(28)
    assert bench.planner().plan(StepCache(policy=StepCachePolicy.NONE))[0] == NoStepCache(reason="the job turns it off")
    assert bench.tried == []
