"""Keeping a quantized component: a safetensors file with the scales (and the weights that the algorithm changed), and no pickle.

ModelOpt's own `mto.save` pickles its state, which a store that is read again must not hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from modelopt.torch.quantization.conversion import create_and_replace_svdquant_linear_on_the_fly
from modelopt.torch.quantization.nn import TensorQuantizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from diffusion_api.optimization import QuantizationAlgorithm
from diffusion_api.recipe import ComponentRecipe
from engine_builder.errors import InvalidModelError
from engine_builder.quantization.formats import quantization_plan
from engine_builder.quantization.quantize import _silent, apply_quantizers

_KEY = "quantization"


def save_quantized(component: nn.Module, recipe: ComponentRecipe, path: Path) -> None:
    """Write what `quantize(component, recipe, …)` changed; the checkpoint itself is needed again to restore it."""
    plan = quantization_plan(recipe)
    layers, tensors = [], {}
    for name, module in component.named_modules():
        weight = getattr(module, "weight_quantizer", None)
        if not isinstance(weight, TensorQuantizer) or not weight.is_enabled:
            continue
        layers.append(name)
        for kind in ("weight_quantizer", "input_quantizer"):
            for buffer, value in getattr(module, kind).named_buffers():
                tensors[f"{name}.{kind}.{buffer}"] = value.detach().cpu().contiguous()
        if plan is not None and plan.changes_weights:
            tensors[f"{name}.weight"] = module.weight.detach().cpu().contiguous()
    header = {"recipe": recipe.model_dump(mode="json", by_alias=True), "layers": layers}
    save_file(tensors, path, metadata={_KEY: json.dumps(header)})


def restore_quantized(component: nn.Module, path: Path) -> ComponentRecipe:
    """Quantize a freshly loaded component as `save_quantized` found it, without calibrating; returns the recipe.

    Raises:
        InvalidModelError: The file is not one of ours, or is of another component.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidModelError(f"{path} holds no quantized component ({error}); remove it and build again") from error
    recipe = ComponentRecipe.model_validate(header["recipe"])
    plan = quantization_plan(recipe)
    if plan is None:
        return recipe
    if missing := sorted({*header["layers"]} - {name for name, _ in component.named_modules()}):
        raise InvalidModelError(f"{path} is of another component: it has no layer {missing[0]}")
    try:
        apply_quantizers(component, plan, header["layers"], algorithm=None, calibrate=None)
        if plan.algorithm is QuantizationAlgorithm.SVD_QUANT:
            with _silent():
                create_and_replace_svdquant_linear_on_the_fly(component)
        for name, value in tensors.items():
            _set_tensor(component, name, value)
    except AttributeError as error:
        raise InvalidModelError(f"{path} is of another component: {error}") from error
    return recipe


def _set_tensor(component: nn.Module, name: str, value: torch.Tensor) -> None:
    owner_name, _, attribute = name.rpartition(".")
    owner: Any = component.get_submodule(owner_name)
    if attribute == "weight":
        owner.weight.data.copy_(value)
        return
    device = next(component.parameters()).device
    owner.register_buffer(attribute, value.to(device))
