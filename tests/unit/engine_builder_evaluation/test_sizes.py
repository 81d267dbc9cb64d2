from __future__ import annotations

from diffusion_api.deployment import MeasuredQuality
from engine_builder.evaluation.budget import worst_quality
from engine_builder.evaluation.samples import Sample, over_sizes


def test_samples_are_dealt_out_to_the_sizes_in_turns() -> None:
    a, b, c = (Sample(prompt, 0) for prompt in "abc")
    assert over_sizes([a, b, c], ["64x64", "96x64"]) == [("64x64", (a, c)), ("96x64", (b,))]
    assert over_sizes([a], ["64x64", "96x64"]) == [("64x64", (a,))]


def test_of_several_sizes_the_worst_decides_metric_by_metric() -> None:
    small = MeasuredQuality(psnr=40, worst_psnr=20, ssim=0.9, flip=0.02)
    large = MeasuredQuality(psnr=30, worst_psnr=28, ssim=0.95, flip=0.01)
    assert worst_quality([small, large]) == MeasuredQuality(psnr=30, worst_psnr=20, ssim=0.9, flip=0.02)
