"""A recipe: one point of the search over quantization and step cache."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from diffusion_api.base import ApiModel
from diffusion_api.optimization import QuantizationAlgorithm, QuantizationFormat, ScaleMode, StepCachePolicy


class ComponentRecipe(ApiModel):
    """How one component is quantized."""

    format: QuantizationFormat = QuantizationFormat.NONE
    """Number format."""
    mode: ScaleMode | None = None
    """When activation scales are computed; None only for format None."""
    algorithm: QuantizationAlgorithm | None = None
    """How scales are chosen; None only for format None."""

    @property
    def label(self) -> str:
        """`INT8 SmoothQuant`, `FP8 Dynamic`, `BF16`."""
        if self.format is QuantizationFormat.NONE:
            return "unquantized"
        words = [self.format.value]
        if self.algorithm not in (None, QuantizationAlgorithm.MAX):
            words.append(self.algorithm.value)
        if self.mode is ScaleMode.DYNAMIC and self.format is not QuantizationFormat.MXFP8:
            words.append("Dynamic")
        return " ".join(words)


class Precision(StrEnum):
    """Floating-point type of everything that is not quantized."""

    FP32 = "FP32"
    FP16 = "FP16"
    BF16 = "BF16"


class MonotoneTable(ApiModel):
    """A non-decreasing piecewise-linear function, constant outside its range."""

    x: tuple[float, ...] = Field(min_length=2, max_length=1024)
    """Arguments, ascending: relative L1 change of the indicator between two steps."""
    y: tuple[float, ...] = Field(min_length=2, max_length=1024)
    """Values, non-decreasing, at least 0: expected relative L1 change of the residual."""
    r_squared: float
    """Coefficient of determination of the fit."""
    samples: int
    """Number of pairs that were fitted."""


class NoStepCache(ApiModel):
    """Every step is computed."""

    policy: Literal[StepCachePolicy.NONE] = StepCachePolicy.NONE
    """Policy."""
    reason: str = ""
    """Why the cache is off, for the report."""

    @property
    def label(self) -> str:
        """Words for a table."""
        return "no step cache"


class FixedMaskStepCache(ApiModel):
    """The steps to leave out are known when the engine is built."""

    policy: Literal[StepCachePolicy.FIXED_MASK] = StepCachePolicy.FIXED_MASK
    """Policy."""
    mask: tuple[bool, ...] = Field(min_length=1, max_length=200)
    """True for each step that is computed; the first is."""

    @property
    def label(self) -> str:
        """Words for a table."""
        return f"step mask {''.join('1' if step else '0' for step in self.mask)}"


class TeaCacheStepCache(ApiModel):
    """A step is computed when the expected change since the last computed one passes a threshold."""

    policy: Literal[StepCachePolicy.TEA_CACHE] = StepCachePolicy.TEA_CACHE
    """Policy."""
    table: MonotoneTable
    """From change of the indicator to expected change of the residual."""
    threshold: float = Field(ge=0)
    """Accumulated expected change at which a step is computed."""
    skip_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of steps left out on the calibration prompts."""

    @property
    def label(self) -> str:
        """Words for a table."""
        return f"TeaCache {self.threshold:.3g} (skips {self.skip_ratio:.0%})"


StepCachePlan = NoStepCache | FixedMaskStepCache | TeaCacheStepCache


class Recipe(ApiModel):
    """One point of the search."""

    components: dict[str, ComponentRecipe] = Field(default_factory=dict)
    """By component name in camelCase (`transformer`, `textEncoder`, `vae`); unnamed ones stay unquantized."""
    precision: Precision = Precision.BF16
    """Floating-point type of everything that is not quantized."""
    step_cache: StepCachePlan = Field(default=NoStepCache(), discriminator="policy")
    """Which steps are left out."""

    @property
    def label(self) -> str:
        """`INT8 SmoothQuant + BF16, no step cache`."""
        named = [self.components.get("transformer", ComponentRecipe()).label]
        named += [f"{name} {recipe.label}" for name, recipe in sorted(self.components.items()) if name != "transformer"]
        quantized = [name for name in named if name != "unquantized"]
        return f"{' + '.join([*quantized, self.precision.value])}, {self.step_cache.label}"
