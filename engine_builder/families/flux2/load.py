"""Loads a FLUX.2 checkpoint into memory: safetensors only, never code from the checkpoint, never the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.utils import logging as transformers_logging

from engine_builder.errors import InvalidModelError
from engine_builder.families.diffusers_folder import names
from engine_builder.families.flux2.variant import Flux2Variant


def load_components(folder: Path, variant: Flux2Variant, dtype: torch.dtype, student: Path | None) -> dict[str, nn.Module]:
    """Load transformer, text encoder and VAE in `eval()` mode on the CPU.

    Args:
        folder: The diffusers folder.
        variant: Which pipeline.
        dtype: Type of all weights.
        student: Safetensors file that replaces every tensor of the transformer.

    Raises:
        InvalidModelError: A tensor is missing or does not fit; names it.
    """
    transformers_logging.disable_progress_bar()  # The builder shows its own.
    transformer = _load(Flux2Transformer2DModel, folder / "transformer", dtype=dtype)
    if student is not None:
        overlay(transformer, student)
    components = {
        "transformer": transformer,
        "textEncoder": _load(_text_encoder_class(variant), folder / "text_encoder", dtype=dtype),
        "vae": _load(AutoencoderKLFlux2, folder / "vae", dtype=dtype),
    }
    return {name: component.eval().requires_grad_(False) for name, component in components.items()}


def overlay(transformer: nn.Module, student: Path) -> None:
    """Replace every tensor of a transformer by a student's.

    Raises:
        InvalidModelError: The student lacks a tensor, has one too many, or one of another shape; names it.
    """
    try:
        tensors = load_file(student)
    except (SafetensorError, OSError) as error:
        raise InvalidModelError(f"student {student.name} cannot be read: {error}") from None
    own = transformer.state_dict()
    if missing := sorted(set(own) - set(tensors)):
        raise InvalidModelError(f"student {student.name} lacks {names(missing)}")
    if unexpected := sorted(set(tensors) - set(own)):
        raise InvalidModelError(f"student {student.name} has {names(unexpected)}, which the transformer has not")
    if misshapen := [name for name, tensor in tensors.items() if tensor.shape != own[name].shape]:
        raise InvalidModelError(f"student {student.name}: other shapes than the transformer's for {names(misshapen)}")
    transformer.load_state_dict(tensors, strict=True)


def _text_encoder_class(variant: Flux2Variant) -> Any:
    import transformers  # noqa: PLC0415 - it imports each class when asked, and takes seconds.

    return getattr(transformers, variant.text_encoder)


def _load(cls: Any, folder: Path, **arguments: object) -> Any:
    try:
        component, info = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **arguments)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise InvalidModelError(f"{folder.name} cannot be loaded: {error}") from None
    _check_loading(folder.name, info)
    return component


def _check_loading(component: str, info: Mapping[str, Any]) -> None:
    """Both libraries fill missing tensors with random numbers and only warn."""
    if missing := sorted(str(name) for name in info.get("missing_keys", ())):
        raise InvalidModelError(f"{component}: {names(missing)} missing from its weights")
    if mismatched := sorted(str(entry) for entry in info.get("mismatched_keys", ())):
        raise InvalidModelError(f"{component}: {names(mismatched)} have other shapes than config.json promises")
