"""The calibration over the true loop and a trained model: what synthetic numbers cannot show is that the pieces fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_api.model_spec import Sampling, Shape
from diffusion_api.optimization import Calibration, QualityBudget, StepCache, StepCachePolicy
from diffusion_api.recipe import FixedMaskStepCache, NoStepCache, TeaCacheStepCache
from engine_builder.evaluation.metrics import measure
from engine_builder.evaluation.piece_times import PieceTimes
from engine_builder.evaluation.reference import draw, draw_reference
from engine_builder.evaluation.samples import split_samples
from engine_builder.evaluation.torch_runner import torch_runners
from engine_builder.families.registry import family_for
from engine_builder.step_cache.plan import plan_step_cache
from engine_runtime.generation import Engine
from engine_runtime.tokenizer import PromptTokenizer

TEACHER = Path(__file__).parents[2] / "models/digits-teacher"
STEPS = 24
BUDGET = QualityBudget(min_psnr=32)
PROMPTS = ("a red digit seven", "a blue digit three", "a green digit zero", "a white digit five")


class Setting:
    """The teacher with 24 steps and guidance, its samples and its reference."""

    def __init__(self) -> None:
        family = family_for(TEACHER)
        model = family.load(TEACHER, torch.float32)
        sampling = Sampling(steps=STEPS, guidance_scale=2.0, max_sequence_length=16)
        self.manifest = family.manifest(TEACHER, sampling, (Shape(width=64, height=64), Shape(width=64, height=48)), 16)
        self.constants = {name: tensor.numpy() for name, tensor in family.constants(self.manifest).items()}
        self.tokenizer = PromptTokenizer(TEACHER / "tokenizer/tokenizer.json", self.manifest.text)
        self.times = PieceTimes(torch_runners(family.graphs(model)))
        self.split = split_samples(PROMPTS, Calibration(samples=4))
        plain = self.engine_with(NoStepCache())
        self.references = [draw_reference(plain, self.split.evaluation, size=plan.shape.name, rerun=2) for plan in self.manifest.shapes]

    def engine_with(self, plan) -> Engine:
        return Engine(self.manifest.model_copy(update={"step_cache": plan}), self.times.runners, self.constants, self.tokenizer)

    def plan(self, choice: StepCache):
        return plan_step_cache(
            choice,
            self.engine_with,
            schedules={plan.shape.name: plan.sigmas for plan in self.manifest.shapes},
            calibration=self.split.calibration,
            references=self.references,
            budget=BUDGET,
            body_share=self.times.share("transformer_body"),
        )


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


def test_the_reference_repeats_itself_exactly(setting: Setting) -> None:
    assert {reference.rerun_psnr for reference in setting.references} == {100}


def test_the_blocks_take_most_of_the_time(setting: Setting) -> None:
    assert setting.times.share("transformer_body") > 0.4


def test_a_table_is_fitted_on_every_pair_of_adjacent_steps(setting: Setting) -> None:
    plan, calibration = setting.plan(StepCache(policy=StepCachePolicy.TEA_CACHE, threshold=0.3))
    assert isinstance(plan, TeaCacheStepCache)
    assert plan.table.samples == 4 * (STEPS - 1)
    assert plan.table.r_squared > 0.5
    assert 0 < plan.skip_ratio < 1
    ((threshold, skip, psnr),) = calibration.sweep
    assert (threshold, skip) == (0.3, plan.skip_ratio)
    assert 20 < psnr < 100


def test_a_mask_inside_the_budget_is_found(setting: Setting) -> None:
    plan, calibration = setting.plan(StepCache(policy=StepCachePolicy.FIXED_MASK))
    assert isinstance(plan, FixedMaskStepCache)
    assert plan.mask[0]
    (psnr,) = (psnr for mask, _, psnr in calibration.masks if [bit == "1" for bit in mask] == list(plan.mask))
    assert psnr >= 32
    drawn = [draw(setting.engine_with(plan), each.samples, size=each.size) for each in setting.references]
    by_size = [measure(each.pictures, now.pictures, BUDGET).psnr for each, now in zip(setting.references, drawn, strict=True)]
    assert psnr == pytest.approx(min(by_size))
    assert np.mean(plan.mask) < 0.8
