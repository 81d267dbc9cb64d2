"""Fitting a number format to a component, in place, with ModelOpt."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from diffusion_api.recipe import ComponentRecipe
from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.quantization import backend
from engine_builder.quantization.formats import QuantizationPlan, quantization_plan, quantizer_config
from engine_builder.quantization.numerics import NVFP4_UNIT_AMAX, Encoding, block_size
from engine_builder.quantization.summary import QuantizationSummary

Calibrate = Callable[[nn.Module], None]
"""Runs the component on its calibration inputs."""

_LINEAR = (nn.Linear,)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def quantize(component: nn.Module, recipe: ComponentRecipe, *, calibrate: Calibrate, exclude: Sequence[str]) -> QuantizationSummary:
    """Quantize a component's matrices (and, for INT8 and static FP8, its convolutions), in place.

    Weights and the inputs of these layers are quantized; attention, norms and embeddings are not. What the formats mean:

    - INT8: weights per output channel; activations per tensor, calibrated.
    - FP8 static: weights and activations per tensor, calibrated. FP8 Dynamic: weights per output channel; activations per token, at run
      time.
    - MXFP8: power-of-two scales per 32, of activations always at run time. Nothing is calibrated.
    - NVFP4: E4M3 scales per 16, of activations always at run time, times one FP32 scale per tensor. Static calibrates that scale for
      the activations. Dynamic fixes it at 1 (ModelOpt's `constant_amax` 2688), so that only the block scales carry the range
      [0.0117, 2688]: no calibration, and, unlike a scale that is computed from the whole tensor at run time, a request's result does not
      depend on the others in its batch.

    Args:
        component: In `eval()` mode; FP32, FP16 or BF16; not yet quantized.
        recipe: Format, mode and algorithm.
        calibrate: Runs the component on its calibration inputs; not called where nothing is calibrated. Equal runs give equal scales.
        exclude: Globs of layer names that keep high precision, for example `*norm*`.

    Raises:
        InvalidJobError: The format has no such mode or algorithm, or no layer can take it.
        InvalidModelError: The component yields NaN or infinity on calibration inputs; the message names the layer.

    Source: ModelOpt 0.47, `modelopt.torch.quantization`; NVFP4's scales: NVIDIA, "Introducing NVFP4", 2025.
    """
    plan = quantization_plan(recipe)
    if plan is None:
        return QuantizationSummary(weight_bytes=_bytes(component.parameters()))
    chosen, sensitive, indivisible = choose_layers(component, plan, exclude)
    if not chosen:
        raise InvalidJobError(f"no layer can be {recipe.label}: every one is excluded or too narrow; use format None for this component")
    for name in chosen:
        if not is_finite(_layer(component, name).weight):
            raise InvalidModelError(f"the weight of layer {name} holds NaN or infinity; the checkpoint is damaged")
    apply_quantizers(component, plan, chosen, algorithm=plan.modelopt_algorithm(), calibrate=calibrate if plan.needs_forward else None)
    unreached = _disable_unreached(component, plan, chosen)
    if plan.activation is Encoding.NVFP4 and not plan.calibrated:
        _fix_tensor_scale(component, chosen)
    _check_scales(component, chosen)
    quantized = tuple(name for name in chosen if name not in unreached)
    return QuantizationSummary(quantized, sensitive, indivisible, unreached, plan.weight_bits, _weight_bytes(component, plan, quantized))


def choose_layers(
    component: nn.Module, plan: QuantizationPlan, exclude: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the names of the layers to quantize, those excluded by the globs, and those whose width the blocks do not divide."""
    block = block_size(plan.weight)
    chosen: list[str] = []
    sensitive: list[str] = []
    indivisible: list[str] = []
    for name, module in component.named_modules():
        if not isinstance(module, _LINEAR + _CONVOLUTIONS):
            continue
        if any(fnmatch.fnmatchcase(name, glob) for glob in exclude) or not (isinstance(module, _LINEAR) or plan.takes_convolutions):
            sensitive.append(name)
        elif block is not None and module.weight.shape[-1] % block:
            indivisible.append(name)
        else:
            chosen.append(name)
    return tuple(chosen), tuple(sensitive), tuple(indivisible)


def apply_quantizers(
    component: nn.Module, plan: QuantizationPlan, layers: Sequence[str], *, algorithm: Any, calibrate: Calibrate | None
) -> None:
    """Put quantizers on `layers` and run ModelOpt's algorithm; `algorithm` None only puts them there."""
    if any(isinstance(module, TensorQuantizer) for module in component.modules()):
        raise ValueError("the component is quantized already; load it again")
    backend.register()
    weight = quantizer_config(plan.weight, per_channel=plan.per_channel, backend=backend.BACKEND)
    activation = quantizer_config(plan.activation, per_channel=False, backend=backend.BACKEND)
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name in layers:
        rules.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weight})
        rules.append({"quantizer_name": f"{name}.input_quantizer", "cfg": activation})
    try:
        with _silent(), torch.no_grad(), name_the_culprit(component, layers if calibrate else ()):
            mtq.quantize(component, {"quant_cfg": rules, "algorithm": algorithm}, forward_loop=calibrate)
    finally:
        component.eval()


@contextlib.contextmanager
def name_the_culprit(component: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Check every input of `layers` for NaN and infinity before a calibrator sees it, which could not say whose it is.

    Raises:
        InvalidModelError: An input is not finite.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def check(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and not is_finite(inputs[0]):
                raise InvalidModelError(f"calibration: the input of layer {name} holds NaN or infinity; the checkpoint is damaged")

        return check

    handles = [_layer(component, name).register_forward_pre_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep ModelOpt's prints, which have no switch in 0.47, from the standard output, where the builder's own lines go."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), warnings.catch_warnings():  # noqa: PTH123 - os.devnull
        # Layers that no input reached are reported by `QuantizationSummary.unreached`.
        warnings.filterwarnings("ignore", message=r".*is not calibrated, skip smoothing")
        warnings.filterwarnings("ignore", message=r"awq_lite: Forcing pre_quant_scale=1")
        yield


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity: its extremes show both, and take a fiftieth of the time."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _disable_unreached(component: nn.Module, plan: QuantizationPlan, layers: Sequence[str]) -> tuple[str, ...]:
    if not plan.needs_forward or plan.activation in (Encoding.MXFP8, Encoding.FP8_TOKEN):
        return ()
    unreached: list[str] = []
    for name in layers:
        layer = _layer(component, name)
        if layer.input_quantizer.amax is None:
            layer.input_quantizer.disable()
            layer.weight_quantizer.disable()
            unreached.append(name)
    return tuple(unreached)


def _fix_tensor_scale(component: nn.Module, layers: Sequence[str]) -> None:
    for name in layers:
        layer = _layer(component, name)
        if layer.input_quantizer.is_enabled:
            layer.input_quantizer.reset_amax()
            layer.input_quantizer.amax = torch.tensor(NVFP4_UNIT_AMAX, device=layer.weight.device)


def _check_scales(component: nn.Module, layers: Sequence[str]) -> None:
    for name in layers:
        for kind in ("weight", "input"):
            for buffer, value in getattr(_layer(component, name), f"{kind}_quantizer").named_buffers():
                if not bool(torch.isfinite(value).all()):
                    raise InvalidModelError(
                        f"layer {name}: {kind} scale ({buffer.lstrip('_')}) is NaN or infinite; the checkpoint is damaged"
                    )


def _layer(component: nn.Module, name: str) -> Any:
    return component.get_submodule(name)  # Any: ModelOpt adds attributes that `nn.Module` has not.


def _bytes(tensors: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _weight_bytes(component: nn.Module, plan: QuantizationPlan, quantized: Sequence[str]) -> int:
    layers = [_layer(component, name) for name in quantized]
    total = _bytes(component.parameters()) - _bytes([layer.weight for layer in layers])
    for layer in layers:
        total += math.ceil(layer.weight.numel() * plan.weight_bits / 8)
        total += 4 * layer.weight.shape[0] if plan.per_channel else 4
        lora = [value for name, value in layer.weight_quantizer.named_buffers() if "lora" in name]
        total += sum(value.numel() * layer.weight.element_size() for value in lora)
    return total
