"""The order in which recipes are built, and what one that draws nothing does to the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffusion_api.build_report import CacheCalibration
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import Optimization
from diffusion_api.recipe import FixedMaskStepCache, Recipe
from engine_builder.errors import QualityBudgetError
from engine_builder.planning import Candidate
from engine_builder.stage_runner import StageResult
from engine_builder.workflow import search
from engine_builder.workflow.reference_stage import References, judge
from engine_builder.workflow.search import Choice, Scored, choose


def scored(speedup: float, *broken: str) -> Scored:
    artifact = StageResult(Path("artifact"), f"{speedup}", reused=False)
    return Scored(Candidate(Recipe(), speedup, simulated=False), MeasuredQuality(psnr=40), 1.0, artifact, broken)


def chosen(monkeypatch: pytest.MonkeyPatch, policy: str, *every: Scored) -> list[tuple[float, str]]:
    """Expected speed and policy of each choice, where a mask that leaves out every second step is found for each recipe."""

    def masked(_: Any, __: Any, each: Scored, share: float) -> Choice:
        plan = FixedMaskStepCache(mask=(True, False))
        return Choice(each, plan, CacheCalibration(decision="masked"), each.candidate.expected_speedup / (1 - share / 2))

    monkeypatch.setattr(search, "_with_step_cache", masked)
    context: Any = SimpleNamespace(job=SimpleNamespace(optimization=Optimization.model_validate({"stepCache": {"policy": policy}})))
    choices = choose(context, References((), body_share=0.5, digest=""), every)
    return [(round(choice.expected_speedup, 2), choice.recipe.step_cache.policy.value) for choice in choices]


def test_an_automatic_step_cache_is_followed_by_the_same_recipe_without(monkeypatch):
    assert chosen(monkeypatch, "Auto", scored(1.2)) == [(1.6, "FixedMask"), (1.2, "None")]


def test_a_step_cache_that_the_job_names_is_never_silently_left_out(monkeypatch):
    assert chosen(monkeypatch, "FixedMask", scored(1.2)) == [(1.6, "FixedMask")]


def test_recipes_come_in_the_order_of_their_speed_with_cache_and_broken_ones_not_at_all(monkeypatch):
    every = chosen(monkeypatch, "Auto", scored(1.5, "PSNR is 3 dB"), scored(1.2), scored(1.0))
    assert every == [(1.6, "FixedMask"), (1.33, "FixedMask"), (1.2, "None"), (1.0, "None")]


def test_a_recipe_that_draws_nothing_is_refused_alone():
    class Broken:
        def generate(self, *_: object, **__: object) -> list[Any]:
            raise QualityBudgetError("the model draws nothing")

    reference = SimpleNamespace(samples=(SimpleNamespace(prompt="a", seed=0),), size="64x64")
    context: Any = None
    found = judge(context, References((reference,), 0.5, ""), Broken())
    assert found.failure == "the model draws nothing"
    assert found.drawings == ()
    assert found.quality == MeasuredQuality()
