"""Which prompts and seeds calibrate, and which ones judge: two sets that share no seed, and no prompt while there are enough."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_api.optimization import Calibration
from engine_builder.errors import InvalidJobError

MAX_EVALUATION_SAMPLES = 32
SEEDS = 2**32


@dataclass(frozen=True)
class Sample:
    """One picture to draw."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class SampleSplit:
    """Scales are calibrated, and the step cache's table is fitted, on one set; the other judges.

    What the other judges, it also selects: the recipe, the step cache's threshold or mask. `verify` measures on it again, on the engine.
    """

    calibration: tuple[Sample, ...]
    """`calibration.samples` of them."""
    evaluation: tuple[Sample, ...]
    """As many, at most 32."""


def over_sizes(samples: Sequence[Sample], sizes: Sequence[str]) -> list[tuple[str, tuple[Sample, ...]]]:
    """Deal samples out to output sizes in turns, so that what is fitted fits all of them; sizes that get none are left out."""
    dealt = [(size, tuple(samples[index :: len(sizes)])) for index, size in enumerate(sizes)]
    return [(size, part) for size, part in dealt if part]


def split_samples(prompts: Sequence[str], calibration: Calibration) -> SampleSplit:
    """Draw both sets: the prompts in an order shuffled by the seed, cycled, each time with the next seed.

    Args:
        prompts: The job's prompts, or the family's built-in ones.
        calibration: Number of samples and first seed.

    Raises:
        InvalidJobError: There are no prompts.
    """
    if not prompts:
        raise InvalidJobError("calibration.prompts: there are none, and the model's family brings none; give at least one")
    # Lists of prompts are often sorted by subject; a part of a sorted list would calibrate on some subjects and judge on others.
    shuffled = random.Random(calibration.seed).sample(list(prompts), len(prompts))
    total = calibration.samples + min(calibration.samples, MAX_EVALUATION_SAMPLES)
    samples = [Sample(shuffled[index % len(shuffled)], (calibration.seed + index) % SEEDS) for index in range(total)]
    return SampleSplit(tuple(samples[: calibration.samples]), tuple(samples[calibration.samples :]))
