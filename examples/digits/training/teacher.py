"""Stage 2: the transformer learns rectified flow; a tenth of the prompts is dropped, so that it can be guided.

Source: Liu et al. 2022, arXiv:2209.03003 (rectified flow); Ho and Salimans 2022, arXiv:2207.12598 (classifier-free guidance); Esser et
al. 2024, arXiv:2403.03206, section 3.1 (logit-normal noise levels).
"""

from __future__ import annotations

import torch
from diffusers import Flux2KleinPipeline

from examples.digits.training.optimize import Batch, fit_transformer
from examples.digits.training.pictures import Conditions, Strokes, encode_conditions, normalised_latents
from examples.digits.vocabulary import COLORS, TEMPLATES

BATCH = 64
PEAK_RATE = 1e-3
DROPPED_PROMPTS = 0.1


def train_teacher(pipeline: Flux2KleinPipeline, strokes: Strokes, steps: int) -> None:
    """Train the transformer and put its moving average into the pipeline."""
    conditions = encode_conditions(pipeline)
    latents = normalised_latents(pipeline, strokes.pixels)

    def sample() -> Batch:
        return _batch(latents, strokes.digits, conditions)

    pipeline.transformer = fit_transformer(pipeline.transformer, sample, steps, peak=PEAK_RATE, stage="teacher")


def _batch(latents: torch.Tensor, digits: torch.Tensor, conditions: Conditions) -> Batch:
    picture = torch.randint(len(digits), (BATCH,))
    color = torch.randint(len(COLORS), (BATCH,))
    template = torch.randint(len(TEMPLATES), (BATCH,))
    clean, sigma = latents[color, picture], torch.sigmoid(torch.randn(BATCH))
    dropped = torch.rand(BATCH) < DROPPED_PROMPTS
    prompts = torch.where(dropped[:, None, None], conditions.empty, conditions.embeddings[template, color, digits[picture]])
    noise, weight = torch.randn_like(clean), sigma[:, None, None]
    inputs = {
        "hidden_states": (1 - weight) * clean + weight * noise,
        "encoder_hidden_states": prompts,
        "timestep": sigma,
        "img_ids": conditions.image_ids,
        "txt_ids": conditions.text_ids,
    }
    return Batch(inputs, noise - clean)
