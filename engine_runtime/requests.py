"""What goes into a generation, what comes out of it, and what can be watched on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion_api.engine_manifest import ShapePlan
from engine_runtime.pieces import Array


@dataclass(frozen=True)
class GenerationRequest:
    """One picture or video that is wanted."""

    prompt: str
    """Text; longer ones than the engine takes are cut, which the result says."""
    seed: int = 0
    """Seed of the noise, see `initial_latents`."""
    size: str | None = None
    """Name of an output size, for example `1024x1024`; None is the engine's default."""
    guidance_scale: float | None = None
    """Guidance; None is the engine's default."""
    latents: Mapping[str, Array] | None = None
    """Noise to start from by stream, FP32 without batch axis, in place of the seed's."""


@dataclass(frozen=True)
class Timings:
    """Wall-clock time of the stages in seconds; of the whole batch, where requests were generated together."""

    encode: float
    denoise: float
    decode: float

    @property
    def total(self) -> float:
        """Sum of the stages."""
        return self.encode + self.denoise + self.decode


@dataclass(frozen=True)
class GenerationResult:
    """One finished request."""

    outputs: dict[str, npt.NDArray[np.generic]]
    """By stream: picture UINT8 [H, W, 3], video UINT8 [F, H, W, 3], audio FP32 [channels, samples]; on the host."""
    latents: dict[str, Array]
    """Denoised latents by stream, FP32, without batch axis."""
    seed: int
    """Seed of the request."""
    size: str
    """Name of the output size."""
    computed: tuple[bool, ...]
    """For each step, True where it was computed and False where the step cache left it out."""
    prompt_was_cut: bool
    """True where the prompt had more tokens than the engine takes."""
    timings: Timings
    """Durations of the stages."""

    @property
    def output(self) -> npt.NDArray[np.generic]:
        """The picture, or the output of the first stream."""
        return next(iter(self.outputs.values()))

    @property
    def steps_computed(self) -> int:
        """Number of steps whose transformer blocks ran."""
        return sum(self.computed)

    @property
    def steps_skipped(self) -> int:
        """Number of steps that the step cache left out."""
        return len(self.computed) - self.steps_computed


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts as the denoiser takes them."""

    conditions: dict[str, Array]
    """Denoiser inputs by name, for example `encoder_hidden_states` [B, T, D]."""
    was_cut: tuple[bool, ...]
    """For each prompt, True where it had more tokens than the engine takes."""


@dataclass(frozen=True)
class DenoisedBatch:
    """What the denoising loop leaves."""

    plan: ShapePlan
    """The output size."""
    latents: dict[str, Array]
    """By stream, FP32 [B, …]."""
    computed: npt.NDArray[np.bool_]
    """[B, steps]: False where the step cache left a step out."""


@dataclass(frozen=True)
class StepEvent:
    """One step is done."""

    step: int
    """Index from 0."""
    steps: int
    """Number of steps."""
    plan: ShapePlan
    """The output size."""
    latents: dict[str, Array]
    """Latents after the step by stream, FP32 [B, …]."""
    predictions: dict[str, Array]
    """The finished latents as this step foresees them, x − sigma × velocity: what a preview decodes."""
    computed: npt.NDArray[np.bool_]
    """[B]: False where the step cache left this step out."""


@dataclass(frozen=True)
class BodyEvent:
    """The transformer blocks ran: a sample for the step cache's calibration."""

    step: int
    """Index from 0."""
    rows: tuple[int, ...]
    """Requests of the batch they ran for."""
    indicator: Array
    """The prelude's indicator of those requests [rows, …]."""
    residuals: dict[str, Array]
    """By stream: output − input of the blocks [rows, …]."""


OnStep = Callable[[StepEvent], None]
"""Called after each step; an exception ends the generation."""
OnBody = Callable[[BodyEvent], None]
"""Called each time the transformer blocks ran."""
