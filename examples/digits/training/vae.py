"""Stage 1: pictures of 64×64×3 to latents of 8×8×4, which the pipeline packs into 16 tokens of 16 channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline

from examples.digits.training.optimize import BETAS, TrainingLog, descend, learning_rate
from examples.digits.training.pictures import colorize, raw_latents
from examples.digits.vocabulary import COLORS

BATCH = 8
PEAK_RATE = 2e-3
KL_WEIGHT = 1e-4 / 1024


def train_vae(pipeline: Flux2KleinPipeline, pixels: torch.Tensor, steps: int) -> None:
    """Train the VAE in place, then measure the statistics by which the pipeline normalises packed latents."""
    vae: AutoencoderKLFlux2 = pipeline.vae.train()
    vae.bn.eval()
    log = TrainingLog("vae", steps)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=BETAS)
    for step in range(1, steps + 1):
        strokes = pixels[torch.randint(len(pixels), (BATCH,))]
        loss = _loss(vae, colorize(strokes, torch.randint(len(COLORS), (BATCH,))))
        descend(optimizer, loss, learning_rate(step, steps, PEAK_RATE, warmup=50) + 1e-5)
        log.note(step, loss.item())
    vae.eval()
    _measure_statistics(pipeline, pixels)


def _loss(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(pictures).latent_dist
    drawn = vae.decode(posterior.sample()).sample
    distance = F.mse_loss(drawn, pictures) + 0.3 * F.l1_loss(drawn, pictures)
    loss: torch.Tensor = distance + KL_WEIGHT * posterior.kl().mean()
    return loss


@torch.no_grad()
def _measure_statistics(pipeline: Flux2KleinPipeline, pixels: torch.Tensor) -> None:
    latents = torch.cat([raw_latents(pipeline, pixels[color :: len(COLORS)], color) for color in range(len(COLORS))])
    pipeline.vae.bn.running_mean.copy_(latents.mean((0, 2, 3)))
    pipeline.vae.bn.running_var.copy_(latents.var((0, 2, 3)))
