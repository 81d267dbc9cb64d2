from __future__ import annotations

import pytest

from diffusion_api.optimization import Calibration
from engine_builder.errors import InvalidJobError
from engine_builder.evaluation.samples import split_samples

PROMPTS = tuple(f"prompt {index}" for index in range(60))


def test_what_calibrates_does_not_judge() -> None:
    split = split_samples(PROMPTS, Calibration(samples=24, seed=5))
    assert len(split.calibration) == len(split.evaluation) == 24
    assert not {s.seed for s in split.calibration} & {s.seed for s in split.evaluation}
    assert not {s.prompt for s in split.calibration} & {s.prompt for s in split.evaluation}


def test_at_most_32_samples_judge() -> None:
    split = split_samples(PROMPTS, Calibration(samples=100))
    assert (len(split.calibration), len(split.evaluation)) == (100, 32)


def test_few_prompts_are_repeated_with_other_seeds() -> None:
    split = split_samples(("one", "two"), Calibration(samples=5, seed=2**32 - 3))
    samples = split.calibration + split.evaluation
    assert len(set(samples)) == 10
    assert all(0 <= sample.seed < 2**32 for sample in samples)


def test_the_same_job_draws_the_same_samples() -> None:
    assert split_samples(PROMPTS, Calibration(seed=3)) == split_samples(PROMPTS, Calibration(seed=3))
    assert split_samples(PROMPTS, Calibration(seed=3)) != split_samples(PROMPTS, Calibration(seed=4))


def test_no_prompts_is_a_fault_of_the_job() -> None:
    with pytest.raises(InvalidJobError, match=r"calibration\.prompts"):
        split_samples((), Calibration())
