"""What the calibrated step cache gains on a 28-step model with guidance: latency, steps left out and PSNR, in one run.

Usage: python benchmarks/step_cache.py [--psnr 38] [--repeats 5]. One thread, torch in FP32; uncached and cached in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from diffusion_api.model_spec import Sampling, Shape
from diffusion_api.optimization import Calibration, QualityBudget, StepCache, StepCachePolicy
from diffusion_api.recipe import NoStepCache, StepCachePlan
from engine_builder.evaluation.budget import text_table
from engine_builder.evaluation.metrics import measure
from engine_builder.evaluation.piece_times import PieceTimes
from engine_builder.evaluation.reference import Reference, draw, draw_reference
from engine_builder.evaluation.samples import Sample, split_samples
from engine_builder.evaluation.speed import compare_latency
from engine_builder.evaluation.torch_runner import torch_runners
from engine_builder.families.registry import family_for
from engine_builder.step_cache.plan import plan_step_cache
from engine_runtime.generation import Engine
from engine_runtime.tokenizer import PromptTokenizer

TEACHER = Path(__file__).parents[1] / "tests/models/digits-teacher"
STEPS, GUIDANCE, SIZE = 28, 2.0, 64
COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Teacher:
    """The model, loaded once; an engine for each step-cache plan."""

    def __init__(self, folder: Path) -> None:
        family = family_for(folder)
        model = family.load(folder, torch.float32)
        sampling = Sampling(steps=STEPS, guidance_scale=GUIDANCE, max_sequence_length=16)
        self.manifest = family.manifest(folder, sampling, (Shape(width=SIZE, height=SIZE),), 16)
        self.constants = {name: tensor.numpy() for name, tensor in family.constants(self.manifest).items()}
        self.tokenizer = PromptTokenizer(folder / "tokenizer/tokenizer.json", self.manifest.text)
        self.times = PieceTimes(torch_runners(family.graphs(model)))

    def engine_with(self, plan: StepCachePlan) -> Engine:
        """Return an engine that generates with a step-cache plan."""
        return Engine(self.manifest.model_copy(update={"step_cache": plan}), self.times.runners, self.constants, self.tokenizer)


def main() -> None:
    """Calibrate each policy for the budget, then measure it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--psnr", type=float, default=38.0, help="quality budget in dB")
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    teacher = Teacher(TEACHER)
    prompts = [f"a {colour} digit {digit}" for colour in COLOURS for digit in DIGITS]
    split = split_samples(prompts, Calibration(samples=32))
    fresh = split_samples(prompts, Calibration(samples=32, seed=1000)).evaluation
    name = f"{SIZE}x{SIZE}"
    reference = draw_reference(teacher.engine_with(NoStepCache()), split.evaluation, size=name)
    held_out = draw_reference(teacher.engine_with(NoStepCache()), fresh, size=name, rerun=1)
    budget = QualityBudget(min_psnr=options.psnr)
    rows = []
    for policy in (StepCachePolicy.TEA_CACHE, StepCachePolicy.FIXED_MASK):
        plan, _ = plan_step_cache(
            StepCache(policy=policy),
            teacher.engine_with,
            schedules={name: teacher.manifest.shapes[0].sigmas},
            calibration=split.calibration,
            references=[reference],
            budget=budget,
            body_share=teacher.times.share("transformer_body"),
        )
        rows += [_row(teacher, plan, held_out, batch, options.repeats) for batch in (1, 8)]
    header = ("plan", "batch", "uncached ms", "cached ms", "faster", "left out", "PSNR, other prompts")
    print(
        f"{STEPS} steps, guidance {GUIDANCE:g}, budget {options.psnr:g} dB, body {teacher.times.share('transformer_body'):.0%} of the time"
    )
    print(text_table(header, rows))


def _row(teacher: Teacher, plan: StepCachePlan, held_out: Reference, batch: int, repeats: int) -> tuple[str, ...]:
    cached = draw(teacher.engine_with(plan), held_out.samples, size=held_out.size)
    psnr = measure(held_out.pictures, cached.pictures, QualityBudget()).psnr or 0.0
    comparison = compare_latency(_drawing(teacher, NoStepCache(), batch), _drawing(teacher, plan, batch), repeats)
    before, after = comparison.unoptimized.median_ms, comparison.optimized.median_ms
    return (
        plan.label,
        str(batch),
        f"{before:.0f}",
        f"{after:.0f}",
        f"{comparison.speedup:.2f}×",
        f"{cached.skip_ratio:.0%}",
        f"{psnr:.1f} dB",
    )


def _drawing(teacher: Teacher, plan: StepCachePlan, batch: int) -> Callable[[int], object]:
    engine = teacher.engine_with(plan)
    return lambda seed: draw(engine, [Sample(f"a red digit {DIGITS[i]}", 100 * seed + i) for i in range(batch)])


if __name__ == "__main__":
    main()
