"""Training pictures and what they become: packed, normalised latents and prompt embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import Flux2KleinPipeline

from examples.digits.strokes import digit_strokes
from examples.digits.training.pipeline import IMAGE_TOKENS, TOKEN_CHANNELS
from examples.digits.vocabulary import COLORS, TEMPLATES, TEXT_TOKENS, all_digits, prompt_for

ENCODE_BATCH = 128


@dataclass(frozen=True)
class Strokes:
    """White digits."""

    pixels: torch.Tensor
    """FP32 [N, 1, 64, 64] in [0, 1]."""
    digits: torch.Tensor
    """INT64 [N]."""


@dataclass(frozen=True)
class Conditions:
    """What the transformer takes besides latents and time."""

    embeddings: torch.Tensor
    """FP32 [template, colour, digit, T, D]."""
    empty: torch.Tensor
    """Of the empty prompt, FP32 [T, D]."""
    text_ids: torch.Tensor
    image_ids: torch.Tensor


def load_strokes(count: int | None = None) -> Strokes:
    """Return the training data, or evenly chosen `count` pictures of it."""
    pixels, digits = digit_strokes()
    chosen = slice(None) if count is None else slice(0, None, len(digits) // count)
    return Strokes(torch.from_numpy(pixels[chosen])[:, None], torch.from_numpy(digits[chosen]))


def colorize(pixels: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
    """Paint strokes [B, 1, H, W] in colours [B] (indices); returns RGB [B, 3, H, W] in [-1, 1]."""
    return pixels * torch.tensor(list(COLORS.values()))[colors][:, :, None, None] * 2 - 1


@torch.no_grad()
def raw_latents(pipeline: Flux2KleinPipeline, pixels: torch.Tensor, color: int) -> torch.Tensor:
    """Encode strokes [B, 1, 64, 64] in one colour to patches [B, 16, 4, 4], not normalised."""
    encoded = []
    for part in torch.split(pixels, ENCODE_BATCH):
        posterior = pipeline.vae.encode(colorize(part, torch.full((len(part),), color))).latent_dist
        encoded.append(pipeline._patchify_latents(posterior.mode()))
    return torch.cat(encoded)


def normalised_latents(pipeline: Flux2KleinPipeline, pixels: torch.Tensor) -> torch.Tensor:
    """Encode strokes [B, 1, 64, 64] in every colour to tokens [colour, B, tokens, channels] of mean 0 and variance 1."""
    statistics = pipeline.vae.bn
    mean = statistics.running_mean.view(1, -1, 1, 1)
    deviation = (statistics.running_var.view(1, -1, 1, 1) + pipeline.vae.config.batch_norm_eps).sqrt()
    by_color = ((raw_latents(pipeline, pixels, color) - mean) / deviation for color in range(len(COLORS)))
    return torch.stack([latents.flatten(2).transpose(1, 2) for latents in by_color])


@torch.no_grad()
def encode_conditions(pipeline: Flux2KleinPipeline) -> Conditions:
    """Encode every prompt, and the empty one."""
    prompts = [prompt_for(digit, template) for template in TEMPLATES for digit in all_digits()]
    embeddings, text_ids = pipeline.encode_prompt([*prompts, ""], device="cpu", max_sequence_length=TEXT_TOKENS)
    side = math.isqrt(IMAGE_TOKENS)
    return Conditions(
        embeddings=embeddings[:-1].view(len(TEMPLATES), len(COLORS), 10, TEXT_TOKENS, -1),
        empty=embeddings[-1],
        text_ids=text_ids[:1],
        image_ids=pipeline._prepare_latent_ids(torch.zeros(1, TOKEN_CHANNELS, side, side)),
    )
