"""The planning half of FLUX.2: what a request may ask, and the manifest of the engine. Needs no torch and no weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffusion_api.engine_manifest import (
    EngineManifest,
    Guidance,
    GuidanceMode,
    LatentDecoder,
    LatentStream,
    ShapePlan,
    TextEncoding,
)
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.errors import InvalidJobError
from engine_builder.families.flow_schedule import flow_sigmas
from engine_builder.families.flux2.checkpoint import Flux2Checkpoint
from engine_builder.families.flux2.variant import Flux2Variant

DISTILLED_STEPS = 4
"""What FLUX.2 klein was distilled to; its model card."""
DEFAULT_STEPS = 50
DEFAULT_GUIDANCE_SCALE = 4.0
"""Both: diffusers 0.42, defaults of `Flux2KleinPipeline.__call__` and `Flux2Pipeline.__call__`."""


def check_request(checkpoint: Flux2Checkpoint, variant: Flux2Variant, sampling: Sampling, shapes: Sequence[Shape]) -> None:
    """Refuse what this checkpoint cannot be asked.

    Raises:
        InvalidJobError: Names the field of the job and what to change.
    """
    _check_shapes(checkpoint, shapes)
    if checkpoint.is_distilled and (sampling.guidance_scale or 0) > 1:
        raise InvalidJobError(
            f"sampling.guidanceScale {sampling.guidance_scale} has no effect: the checkpoint is step-distilled; leave it out"
        )
    if sampling.sigmas is not None and sampling.sigmas[-1] == 0:
        raise InvalidJobError("sampling.sigmas ends with 0; leave the final 0 out, it is appended")
    length = sampling.max_sequence_length
    limits = {"tokenizer": checkpoint.tokenizer.model_max_length, "text encoder": checkpoint.text.max_position_embeddings}
    if window := _sliding_window(checkpoint):
        limits["text encoder's attention window"] = window
    for holder, limit in limits.items():
        if length > limit:
            raise InvalidJobError(f"sampling.maxSequenceLength {length} is more than the {holder} takes; use at most {limit}")
    template = text_encoding(checkpoint, variant, length)
    tokens = checkpoint.tokenizer.count_tokens(template.template_prefix)
    if tokens >= length:
        raise InvalidJobError(f"sampling.maxSequenceLength {length} leaves no room for a prompt: the chat template takes {tokens} tokens")


def manifest(
    checkpoint: Flux2Checkpoint, variant: Flux2Variant, sampling: Sampling, shapes: Sequence[Shape], max_batch_size: int
) -> EngineManifest:
    """Return the manifest without pieces."""
    return EngineManifest(
        family=variant.name,
        pieces={},
        streams=(LatentStream(name="image", input="hidden_states", output="sample", body_input="x", body_output="y"),),
        shapes=tuple(_shape_plan(checkpoint, sampling, shape) for shape in shapes),
        guidance=_guidance(checkpoint, sampling),
        text=text_encoding(checkpoint, variant, sampling.max_sequence_length),
        decoders=(
            LatentDecoder(
                stream="image",
                piece="vae_decoder",
                input="latents",
                reshape=("latent_height", "latent_width", checkpoint.transformer.in_channels),
                output="image",
            ),
        ),
        max_batch_size=max_batch_size,
    )


def text_encoding(checkpoint: Flux2Checkpoint, variant: Flux2Variant, max_sequence_length: int) -> TextEncoding:
    """Return how a prompt becomes tokens."""
    return checkpoint.tokenizer.text_encoding(
        variant.messages, max_sequence_length, {"prompt_embeds": "encoder_hidden_states"}, **variant.template_arguments
    )


def empirical_mu(image_tokens: int, steps: int) -> float:
    """Return the schedule's shift for a resolution and step count.

    Source: diffusers 0.42 `pipeline_flux2.compute_empirical_mu`: two lines in the number of tokens, measured at 10 and at 200 steps,
    and a line in the number of steps between them; above 4300 tokens the one of 200 steps.
    """
    at_200_steps = 0.00016927 * image_tokens + 0.45666666
    if image_tokens > 4300:
        return at_200_steps
    at_10_steps = 8.73809524e-05 * image_tokens + 1.89833333
    slope = (at_200_steps - at_10_steps) / 190.0
    return slope * steps + at_200_steps - 200.0 * slope


def _sigmas(checkpoint: Flux2Checkpoint, sampling: Sampling, image_tokens: int) -> tuple[float, ...]:
    if sampling.sigmas is not None:
        return (*sampling.sigmas, 0.0)
    steps = sampling.steps or (DISTILLED_STEPS if checkpoint.is_distilled else DEFAULT_STEPS)
    levels = [float(level) for level in np.linspace(1.0, 1 / steps, steps)]
    return flow_sigmas(checkpoint.scheduler, levels, empirical_mu(image_tokens, steps))


def _shape_plan(checkpoint: Flux2Checkpoint, sampling: Sampling, shape: Shape) -> ShapePlan:
    height, width = shape.height // checkpoint.pixels_per_token, shape.width // checkpoint.pixels_per_token
    tokens, text_tokens = height * width, sampling.max_sequence_length
    return ShapePlan(
        shape=shape,
        dims={
            "image_tokens": tokens,
            "text_tokens": text_tokens,
            "tokens": text_tokens + tokens,
            "latent_height": height,
            "latent_width": width,
            "height": shape.height,
            "width": shape.width,
        },
        latents={"image": (tokens, checkpoint.transformer.in_channels)},
        sigmas=_sigmas(checkpoint, sampling, tokens),
        constants={"position_ids": f"position_ids_{shape.name}"},
    )


def _guidance(checkpoint: Flux2Checkpoint, sampling: Sampling) -> Guidance:
    scale = DEFAULT_GUIDANCE_SCALE if sampling.guidance_scale is None else sampling.guidance_scale
    if checkpoint.transformer.guidance_embeds:
        return Guidance(mode=GuidanceMode.EMBEDDED, scale=scale)
    if checkpoint.is_distilled or scale <= 1:
        return Guidance()
    return Guidance(mode=GuidanceMode.CLASSIFIER_FREE, scale=scale)


def _sliding_window(checkpoint: Flux2Checkpoint) -> int | None:
    return checkpoint.text.sliding_window if checkpoint.text.use_sliding_window else None


def _check_shapes(checkpoint: Flux2Checkpoint, shapes: Sequence[Shape]) -> None:
    if not shapes:
        raise InvalidJobError("shapes is empty; name at least one output size")
    step = checkpoint.pixels_per_token
    for shape in shapes:
        if shape.frames is not None:
            raise InvalidJobError(f"shape {shape.name} has frames, but FLUX.2 draws pictures; leave frames out")
        if shape.width % step or shape.height % step:
            raise InvalidJobError(f"shape {shape.name}: width and height must be multiples of {step}")
    if len({shape.name for shape in shapes}) != len(shapes):
        raise InvalidJobError("shapes names a size twice")
