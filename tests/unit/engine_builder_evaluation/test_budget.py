from __future__ import annotations

import pytest

from diffusion_api.build_report import CandidateResult
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget
from diffusion_api.recipe import Recipe
from engine_builder.evaluation.budget import candidate_table, quality_summary, within_budget

BUDGET = QualityBudget(min_psnr=35, max_flip=0.08)


def test_a_held_budget_has_nothing_to_say() -> None:
    assert within_budget(MeasuredQuality(psnr=35, flip=0.08), BUDGET) == []


def test_each_broken_limit_is_a_sentence_with_its_field() -> None:
    sentences = within_budget(MeasuredQuality(psnr=28.123, flip=0.2), BUDGET)
    assert sentences == [
        "PSNR is 28.1 dB, the budget asks for ≥ 35 dB (qualityBudget.minPSNR)",
        "FLIP is 0.200, the budget asks for ≤ 0.08 (qualityBudget.maxFLIP)",
    ]


def test_what_was_not_measured_or_is_nan_is_never_a_pass() -> None:
    assert len(within_budget(MeasuredQuality(psnr=float("nan"), flip=None), BUDGET)) == 2


def test_a_bad_picture_does_not_hide_behind_a_good_mean() -> None:
    hidden = MeasuredQuality(psnr=79.5, worst_psnr=18, flip=0.05)  # Six identical pictures, and two at 18 dB.
    assert within_budget(hidden, BUDGET) == [
        "the worst picture's PSNR is 18.0 dB, more than 6 dB under the budget's 35 dB (qualityBudget.minPSNR); the mean is 79.5 dB"
    ]


@pytest.mark.parametrize(("worst", "held"), [(29.0, True), (28.99, False), (float("nan"), False), (None, True)])
def test_the_worst_picture_may_be_six_decibels_under_the_budget(worst: float | None, held: bool) -> None:
    assert (within_budget(MeasuredQuality(psnr=40, worst_psnr=worst, flip=0), BUDGET) == []) is held


def test_the_worst_picture_stands_beside_the_mean() -> None:
    quality = MeasuredQuality(psnr=41.23, worst_psnr=36.04, flip=0.031)
    assert quality_summary(quality, BUDGET) == "41.2 dB, worst 36.0 dB (≥ 35 dB), FLIP 0.031 (≤ 0.08)"
    assert quality_summary(quality, QualityBudget()) == "41.2 dB, worst 36.0 dB (no budget)"


def test_quality_is_summed_up_against_the_budget() -> None:
    assert quality_summary(MeasuredQuality(psnr=41.23, flip=0.031), BUDGET) == "41.2 dB (≥ 35 dB), FLIP 0.031 (≤ 0.08)"
    assert quality_summary(MeasuredQuality(psnr=41.23), QualityBudget()) == "41.2 dB (no budget)"


def test_the_table_says_what_each_recipe_reached() -> None:
    candidates = [
        CandidateResult(
            recipe=Recipe(), label="NVFP4", quality=MeasuredQuality(psnr=22.04, flip=0.05), expected_speedup=2.5, note="too coarse"
        ),
        CandidateResult(recipe=Recipe(), label="INT8 SmoothQuant", expected_speedup=1.5),
    ]
    assert candidate_table(candidates, BUDGET).splitlines() == [
        "recipe            expected speed  PSNR (≥ 35 dB)  FLIP (≤ 0.08)  note",
        "────────────────  ──────────────  ──────────────  ─────────────  ──────────",
        "NVFP4             2.50×           22.0 dB ✗       0.050          too coarse",
        "INT8 SmoothQuant  1.50×           not measured    not measured",
    ]
