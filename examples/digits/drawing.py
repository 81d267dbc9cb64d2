"""Draws with a saved digits pipeline in diffusers, unoptimized: for looking at it and for judging it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import Flux2KleinPipeline

from examples.digits.vocabulary import PICTURE_SIZE, TEXT_TOKENS


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Flux2KleinPipeline:
    """Load a saved pipeline."""
    pipeline = Flux2KleinPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: Flux2KleinPipeline, prompts: Sequence[str], *, steps: int, guidance: float = 1.0, seed: int = 7
) -> npt.NDArray[np.uint8]:
    """Draw one picture a prompt; UINT8 [N, 64, 64, 3]."""
    pictures: npt.NDArray[np.floating] = pipeline(
        prompt=list(prompts),
        height=PICTURE_SIZE,
        width=PICTURE_SIZE,
        max_sequence_length=TEXT_TOKENS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images
    return (pictures * 255).round().astype(np.uint8)


def contact_sheet(pictures: npt.NDArray[np.uint8], columns: int = 10) -> npt.NDArray[np.uint8]:
    """Lay pictures [N, H, W, 3] out in rows; N is a multiple of `columns`."""
    count, height, width, channels = pictures.shape
    rows = pictures.reshape(count // columns, columns, height, width, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(count // columns * height, columns * width, channels)
