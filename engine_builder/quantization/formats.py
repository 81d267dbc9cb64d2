"""What a recipe's words mean: the encoding of weights and activations, and the algorithm that chooses scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusion_api.optimization import QuantizationAlgorithm, QuantizationFormat, ScaleMode, check_recipe
from diffusion_api.recipe import ComponentRecipe
from engine_builder.errors import InvalidJobError
from engine_builder.quantization.numerics import Encoding, block_size

SVDQUANT_RANK = 32
"""Rank of the high-precision branch (Li et al. 2025, arXiv:2411.05007, section 4.1)."""


@dataclass(frozen=True)
class QuantizationPlan:
    """A recipe, decided."""

    weight: Encoding
    """Encoding of weights."""
    activation: Encoding
    """Encoding of activations."""
    per_channel: bool
    """Whether a weight has a scale per output channel."""
    calibrated: bool
    """Whether activation scales come from calibration; otherwise from each activation."""
    algorithm: QuantizationAlgorithm
    """How scales and weights are chosen."""

    @property
    def needs_forward(self) -> bool:
        """True where the component must run on calibration inputs."""
        return self.calibrated or self.algorithm is not QuantizationAlgorithm.MAX

    @property
    def changes_weights(self) -> bool:
        """True where the algorithm moves range between weights and activations."""
        return self.algorithm is not QuantizationAlgorithm.MAX

    @property
    def takes_convolutions(self) -> bool:
        """True where a convolution can have this encoding: blocks and tokens run along a matrix's last axis only."""
        return self.activation in (Encoding.INT8, Encoding.FP8)

    @property
    def weight_bits(self) -> float:
        """Bits per weight with block scales."""
        return {Encoding.MXFP8: 8 + 8 / 32, Encoding.NVFP4: 4 + 8 / 16}.get(self.weight, 8.0)

    def modelopt_algorithm(self) -> Any:
        """Return ModelOpt's word for the algorithm."""
        match self.algorithm:
            case QuantizationAlgorithm.MAX:
                return "max"
            case QuantizationAlgorithm.SMOOTH_QUANT:
                return "smoothquant"
            case QuantizationAlgorithm.AWQ:
                return "awq_lite"
            case QuantizationAlgorithm.SVD_QUANT:
                return {"method": "svdquant", "lowrank": SVDQUANT_RANK}


def quantization_plan(recipe: ComponentRecipe) -> QuantizationPlan | None:
    """Decide a recipe; None where nothing is quantized.

    Raises:
        InvalidJobError: The format has no such mode or algorithm.
    """
    try:
        check_recipe(recipe.format, recipe.mode, recipe.algorithm)
    except ValueError as error:
        raise InvalidJobError(f"{error}") from None
    algorithm = recipe.algorithm or QuantizationAlgorithm.MAX
    static = recipe.mode is not ScaleMode.DYNAMIC
    match recipe.format:
        case QuantizationFormat.NONE:
            return None
        case QuantizationFormat.INT8:
            return QuantizationPlan(Encoding.INT8, Encoding.INT8, True, True, algorithm)
        case QuantizationFormat.FP8:
            activation = Encoding.FP8 if static else Encoding.FP8_TOKEN
            return QuantizationPlan(Encoding.FP8, activation, not static, static, algorithm)
        case QuantizationFormat.MXFP8:
            return QuantizationPlan(Encoding.MXFP8, Encoding.MXFP8, False, False, algorithm)
        case QuantizationFormat.NVFP4:
            return QuantizationPlan(Encoding.NVFP4, Encoding.NVFP4, False, static, algorithm)


def quantizer_config(encoding: Encoding, *, per_channel: bool, backend: str) -> dict[str, Any]:
    """Return ModelOpt's attributes of one quantizer."""
    config: dict[str, Any] = {"backend": backend, "backend_extra_args": {"encoding": encoding.value}}
    match encoding:
        case Encoding.INT8:
            return config | {"num_bits": 8, "axis": 0 if per_channel else None}
        case Encoding.FP8:
            return config | {"num_bits": (4, 3), "axis": 0 if per_channel else None}
        case Encoding.FP8_TOKEN:
            return config | {"num_bits": (4, 3), "type": "dynamic", "block_sizes": {-1: None}}
        case Encoding.MXFP8:
            return config | {"num_bits": (4, 3), "block_sizes": {-1: block_size(encoding), "type": "dynamic", "scale_bits": (8, 0)}}
        case Encoding.NVFP4:
            return config | {"num_bits": (2, 1), "block_sizes": {-1: block_size(encoding), "type": "dynamic", "scale_bits": (4, 3)}}
