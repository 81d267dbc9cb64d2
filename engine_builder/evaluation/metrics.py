"""Distances between pictures: how far the optimized model's output lies from the unoptimized one's, on the same prompts and seeds.

Every function here takes pairs of UINT8 pictures [B, H, W, 3] and yields one value a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from flip_evaluator import evaluate
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget
from engine_builder.errors import InvalidJobError, QualityBudgetError

Pictures = NDArray[np.uint8]
Values = NDArray[np.float64]

IDENTICAL_PSNR_DB = 100.0
MIN_ENTROPY_BITS = 0.05
SSIM_WINDOW = 7


@dataclass(frozen=True)
class PerceptualModels:
    """Weights that LPIPS and the CLIP score need; the job names where they come from, the caller has fetched them."""

    lpips: Path | None = None
    """TorchScript module: two pictures [B, 3, H, W] in [-1, 1] to distances [B]."""
    clip: Path | None = None
    """A transformers CLIP folder."""


def psnr(reference: Pictures, candidate: Pictures) -> Values:
    """Return the peak signal-to-noise ratio of each pair in dB, 100 for identical pictures.

    Source: PSNR = 10 log10(255² / MSE), ITU-T J.247, annex on PSNR.
    """
    difference = reference.astype(np.float64) - candidate.astype(np.float64)
    error = np.mean(difference**2, axis=(1, 2, 3))
    smallest = 255.0**2 / 10 ** (IDENTICAL_PSNR_DB / 10)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(error, smallest)))


def ssim(reference: Pictures, candidate: Pictures) -> Values:
    """Return the structural similarity of each pair, 1 for identical pictures.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity"; scikit-image.
    """
    pairs = zip(reference, candidate, strict=True)
    return np.array([structural_similarity(a, b, channel_axis=2, data_range=255, win_size=SSIM_WINDOW) for a, b in pairs])


def flip(reference: Pictures, candidate: Pictures) -> Values:
    """Return the mean FLIP error of each pair in [0, 1], at 67 pixels a degree; 2 s for a pair of 1024×1024.

    Source: Andersson et al. 2020, "FLIP: a difference evaluator for alternating images"; NVIDIA's flip-evaluator.
    """
    pairs = zip(reference, candidate, strict=True)
    scaled = ((a.astype(np.float32) / 255, b.astype(np.float32) / 255) for a, b in pairs)
    return np.array([evaluate(a, b, "LDR", applyMagma=False)[1] for a, b in scaled])


def lpips(reference: Pictures, candidate: Pictures, module: Path) -> Values:
    """Return the LPIPS distance of each pair.

    Args:
        module: TorchScript file of two pictures FP32 [B, 3, H, W] in [-1, 1] to distances [B] (or [B, 1, 1, 1]).

    Raises:
        InvalidJobError: The file is no TorchScript module, or does not take or yield this.

    Source: Zhang et al. 2018, arXiv:1801.03924.
    """

    def prepared(pictures: Pictures) -> torch.Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1

    try:
        network = torch.jit.load(str(module), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            distances = [network(prepared(a[None]), prepared(b[None])) for a, b in zip(reference, candidate, strict=True)]
        return torch.cat([distance.reshape(1) for distance in distances]).double().numpy()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InvalidJobError(f"lpipsUri: {module.name} is not a TorchScript LPIPS of two [B, 3, H, W] pictures: {reason}") from error


def clip_score(pictures: Pictures, prompts: tuple[str, ...], folder: Path) -> Values:
    """Return 100 × the cosine between each picture's and its prompt's CLIP embedding, at least 0.

    Raises:
        InvalidJobError: The folder is no transformers CLIP model with its tokenizer and image processor.

    Source: Hessel et al. 2021, arXiv:2104.08718, with w = 100 as torchmetrics has it.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel  # noqa: PLC0415  # Takes seconds, and few budgets ask for it.

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidJobError(f"clipUri: {folder.name} is not a transformers CLIP folder: {error}") from error
    scores = []
    with torch.inference_mode():
        for picture, prompt in zip(pictures, prompts, strict=True):
            longest = model.config.text_config.max_position_embeddings
            text = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=longest)
            output = model(**text, pixel_values=processor(picture, return_tensors="pt")["pixel_values"])
            scores.append(100 * torch.cosine_similarity(output.image_embeds, output.text_embeds).clamp(min=0))
    return torch.cat(scores).double().numpy()


def measure(
    reference: Pictures,
    candidate: Pictures,
    budget: QualityBudget,
    *,
    prompts: tuple[str, ...] = (),
    models: PerceptualModels = PerceptualModels(),
) -> MeasuredQuality:
    """Measure what is cheap (PSNR, SSIM) always and what is dear (FLIP, LPIPS, CLIP) where the budget limits it; means over the pairs.

    Of PSNR also the worst pair: identical pairs of 100 dB would hide in a mean that others are bad.

    Args:
        prompts: One a picture; needed for the CLIP score.
        models: Weights for LPIPS and CLIP.

    Raises:
        InvalidJobError: The budget limits LPIPS or CLIP and `models` lacks its weights, or they are not usable.
        ValueError: The pictures' sizes differ.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"pictures of shape {candidate.shape} cannot be compared with {reference.shape}")
    decibels = psnr(reference, candidate)
    return MeasuredQuality(
        psnr=float(decibels.mean()),
        worst_psnr=float(decibels.min()),
        ssim=float(ssim(reference, candidate).mean()),
        flip=None if budget.max_flip is None else float(flip(reference, candidate).mean()),
        lpips=None if budget.max_lpips is None else float(lpips(reference, candidate, _needed(models.lpips, "lpipsUri")).mean()),
        clip_drop=None if budget.max_clip_drop is None else _clip_drop(reference, candidate, prompts, _needed(models.clip, "clipUri")),
    )


def worst_first(reference: Pictures, candidate: Pictures) -> list[int]:
    """Return the pairs' indices, lowest PSNR first."""
    return [int(index) for index in np.argsort(psnr(reference, candidate), kind="stable")]


def check_pictures(pictures: NDArray[np.generic]) -> None:
    """Refuse pictures that show nothing, which no distance to a reference that shows nothing either would find.

    Args:
        pictures: [B, H, W, 3] (or [B, F, H, W, 3]), UINT8, or floating point where they are not yet rounded.

    Raises:
        QualityBudgetError: NaN, infinite, constant or almost constant pictures.
    """
    for index, picture in enumerate(pictures):
        if np.issubdtype(picture.dtype, np.floating) and not np.isfinite(picture).all():
            raise QualityBudgetError(f"the model draws nothing: picture {index} has NaN or infinite values")
        if picture.max() == picture.min():
            raise QualityBudgetError(f"the model draws nothing: all pixels of picture {index} have the value {picture.max()}")
        if (bits := _entropy_bits(picture)) < MIN_ENTROPY_BITS:
            raise QualityBudgetError(f"the model draws nothing: picture {index} is almost constant ({bits:.3f} bits a value)")


def _entropy_bits(picture: NDArray[np.generic]) -> float:
    """Return Shannon's entropy of the values in 256 bins."""
    limits = (0, 256) if picture.dtype == np.uint8 else None
    counts, _ = np.histogram(picture, bins=256, range=limits)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _needed(path: Path | None, field: str) -> Path:
    if path is None:
        raise InvalidJobError(f"qualityBudget.{field}: the weights were not fetched, so its limit cannot be measured")
    return path


def _clip_drop(reference: Pictures, candidate: Pictures, prompts: tuple[str, ...], folder: Path) -> float:
    return float(clip_score(reference, prompts, folder).mean() - clip_score(candidate, prompts, folder).mean())
