"""How far the model may be changed to be faster: quantization, step cache, and the quality budget that bounds both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from diffusion_api.base import DNS_SUBDOMAIN_PATTERN, ApiModel, CelRule, cel_rules
from diffusion_api.model_spec import Sampling, Uri


class QuantizationFormat(StrEnum):
    """Number format of the quantized layers' weights and activations."""

    NONE = "None"
    INT8 = "INT8"
    FP8 = "FP8"
    MXFP8 = "MXFP8"
    NVFP4 = "NVFP4"


class FormatChoice(StrEnum):
    """A format, or `Auto`: search for the fastest inside the quality budget."""

    AUTO = "Auto"
    NONE = "None"
    INT8 = "INT8"
    FP8 = "FP8"
    MXFP8 = "MXFP8"
    NVFP4 = "NVFP4"


class QuantizationAlgorithm(StrEnum):
    """How scales and weights are chosen."""

    MAX = "Max"
    SMOOTH_QUANT = "SmoothQuant"  # INT8 only.
    AWQ = "AWQ"  # NVFP4 only.
    SVD_QUANT = "SVDQuant"  # NVFP4 only.


class ScaleMode(StrEnum):
    """When activation scales are computed."""

    STATIC = "Static"  # Calibrated ahead, on the model's own trajectories.
    DYNAMIC = "Dynamic"  # At run time, from each activation.


ALGORITHMS: dict[QuantizationFormat, tuple[QuantizationAlgorithm, ...]] = {
    QuantizationFormat.NONE: (),
    QuantizationFormat.INT8: (QuantizationAlgorithm.MAX, QuantizationAlgorithm.SMOOTH_QUANT),
    QuantizationFormat.FP8: (QuantizationAlgorithm.MAX,),
    QuantizationFormat.MXFP8: (QuantizationAlgorithm.MAX,),
    QuantizationFormat.NVFP4: (QuantizationAlgorithm.MAX, QuantizationAlgorithm.AWQ, QuantizationAlgorithm.SVD_QUANT),
}
MODES: dict[QuantizationFormat, tuple[ScaleMode, ...]] = {
    QuantizationFormat.NONE: (),
    QuantizationFormat.INT8: (ScaleMode.STATIC,),
    QuantizationFormat.FP8: (ScaleMode.STATIC, ScaleMode.DYNAMIC),
    QuantizationFormat.MXFP8: (ScaleMode.DYNAMIC,),
    QuantizationFormat.NVFP4: (ScaleMode.STATIC, ScaleMode.DYNAMIC),
}


def check_recipe(format: QuantizationFormat, mode: ScaleMode | None, algorithm: QuantizationAlgorithm | None) -> None:
    """Raise `ValueError`, saying what goes, where a format has no such mode or algorithm."""
    if mode is not None and mode not in MODES[format]:
        raise ValueError(f"mode {mode} does not exist for {format}; use {' or '.join(MODES[format]) or 'no mode'}")
    if algorithm is not None and algorithm not in ALGORITHMS[format]:
        raise ValueError(f"algorithm {algorithm} does not exist for {format}; use {' or '.join(ALGORITHMS[format]) or 'no algorithm'}")


def _choice_rules(field: str, table: Mapping[QuantizationFormat, Sequence[StrEnum]], everything: int) -> list[CelRule]:
    rules = []
    for named, choices in table.items():
        if len(choices) == everything:
            continue
        usable = " or ".join(choices) or f"no {field}"
        allowed = ", ".join(f"'{choice}'" for choice in choices)
        rules.append(
            CelRule(
                f"self.format != '{named}' || !has(self.{field})" + (f" || self.{field} in [{allowed}]" if choices else ""),
                f"{field} %s does not exist for {named}; use {usable}",
                (f"self.{field}",),
                field_path=f".{field}",
            )
        )
    return rules


# What `check_recipe` says, for the API server.
RECIPE_RULES = (*_choice_rules("mode", MODES, len(ScaleMode)), *_choice_rules("algorithm", ALGORITHMS, len(QuantizationAlgorithm)))
AUTO_SENTENCE = "mode and algorithm are chosen by the search when format is Auto; name a format or leave them out"
TRANSFORMER_SENTENCE = "the transformer's own format is quantization.format; leave transformer out of components"


class ComponentQuantization(ApiModel):
    """A format for one component, where it differs from the transformer's."""

    model_config = ConfigDict(json_schema_extra=cel_rules(*RECIPE_RULES))

    format: QuantizationFormat = QuantizationFormat.NONE
    """Number format of this component."""
    mode: ScaleMode | None = None
    """When its activation scales are computed."""
    algorithm: QuantizationAlgorithm | None = None
    """How its scales are chosen."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_recipe(self.format, self.mode, self.algorithm)
        return self


class Quantization(ApiModel):
    """Quantization of the transformer, and of other components where named."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule("self.format != 'Auto' || (!has(self.mode) && !has(self.algorithm))", AUTO_SENTENCE),
            CelRule("!has(self.components) || !('transformer' in self.components)", TRANSFORMER_SENTENCE, field_path=".components"),
            *RECIPE_RULES,
        )
    )

    format: FormatChoice = FormatChoice.AUTO
    """Number format of the transformer; `Auto` searches for the fastest inside the quality budget."""
    mode: ScaleMode | None = None
    """When activation scales are computed; unset: the format's usual one."""
    algorithm: QuantizationAlgorithm | None = None
    """How scales are chosen; unset: the format's plain one, `Max`."""
    components: dict[str, ComponentQuantization] = Field(default={}, max_length=16)
    """Formats of other components by name, for example `textEncoder`; unnamed ones stay unquantized."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format is FormatChoice.AUTO:
            if self.mode or self.algorithm:
                raise ValueError(AUTO_SENTENCE)
        else:
            check_recipe(QuantizationFormat(self.format), self.mode, self.algorithm)
        if "transformer" in self.components:
            raise ValueError(TRANSFORMER_SENTENCE)
        return self


class StepCachePolicy(StrEnum):
    """How denoising steps are left out."""

    AUTO = "Auto"
    NONE = "None"
    TEA_CACHE = "TeaCache"  # A calibrated indicator decides at run time.
    FIXED_MASK = "FixedMask"  # The steps to leave out are fixed when the engine is built.


THRESHOLD_SENTENCE = "threshold belongs to policy TeaCache"
MASK_SENTENCE = "mask belongs to policy FixedMask"
FIRST_STEP_SENTENCE = "mask[0] must be true: the first step has no earlier residual to reuse"


class StepCache(ApiModel):
    """Leaving out a denoising step's transformer blocks and adding the last residual instead."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule("!has(self.threshold) || self.policy == 'TeaCache'", THRESHOLD_SENTENCE, field_path=".threshold"),
            CelRule("!has(self.mask) || self.policy == 'FixedMask'", MASK_SENTENCE, field_path=".mask"),
            CelRule("!has(self.mask) || self.mask[0]", FIRST_STEP_SENTENCE, field_path=".mask"),
        )
    )

    policy: StepCachePolicy = StepCachePolicy.AUTO
    """`Auto` calibrates and stays off when it gains less than 10 %."""
    threshold: float | None = Field(default=None, ge=0, le=10)
    """TeaCache only: accumulated change at which a step is computed; unset: the largest inside the budget."""
    mask: tuple[bool, ...] | None = Field(default=None, min_length=1, max_length=200)
    """FixedMask only: true for each step that is computed, in order; the first must be. Unset: chosen by calibration."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.threshold is not None and self.policy is not StepCachePolicy.TEA_CACHE:
            raise ValueError(THRESHOLD_SENTENCE)
        if self.mask is not None and self.policy is not StepCachePolicy.FIXED_MASK:
            raise ValueError(MASK_SENTENCE)
        if self.mask is not None and not self.mask[0]:
            raise ValueError(FIRST_STEP_SENTENCE)
        return self


class PromptsConfigMap(ApiModel):
    """Prompts kept in the cluster."""

    name: str = Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)
    """Name of the ConfigMap in the same namespace."""
    key: str = Field(default="prompts.txt", min_length=1, max_length=253)
    """Key whose value has one prompt a line."""


Prompt = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
PROMPTS_SENTENCE = "give prompts or promptsConfigMap, not both"


class Calibration(ApiModel):
    """What the scales, the step cache and the quality measurement are fitted on."""

    model_config = ConfigDict(json_schema_extra=cel_rules(CelRule("!has(self.prompts) || !has(self.promptsConfigMap)", PROMPTS_SENTENCE)))

    samples: int = Field(default=64, ge=1, le=4096)
    """Number of prompts that are drawn."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of their noise."""
    prompts: tuple[Prompt, ...] | None = Field(default=None, min_length=1, max_length=4096)
    """Prompts, repeated with other seeds when fewer than `samples`. Unset: the family's built-in list."""
    prompts_config_map: PromptsConfigMap | None = None
    """Prompts from a ConfigMap instead."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.prompts is not None and self.prompts_config_map is not None:
            raise ValueError(PROMPTS_SENTENCE)
        return self


LPIPS_SENTENCE = "maxLPIPS needs lpipsUri, the weights to measure it with"
CLIP_SENTENCE = "maxClipDrop needs clipUri, the model to measure it with"


class QualityBudget(ApiModel):
    """Limits that the optimized model must stay inside, measured against the unoptimized one on the same seeds."""

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule("!has(self.maxLPIPS) || has(self.lpipsUri)", LPIPS_SENTENCE),
            CelRule("!has(self.maxClipDrop) || has(self.clipUri)", CLIP_SENTENCE),
        )
    )

    min_psnr: float | None = Field(default=None, ge=0, le=100)
    """Peak signal-to-noise ratio in dB, mean over the pictures, of which identical ones count as 100 dB.

    The worst picture may lie at most 6 dB below it.
    """
    min_ssim: float | None = Field(default=None, ge=0, le=1)
    """Structural similarity, mean over the pictures."""
    max_flip: float | None = Field(default=None, ge=0, le=1)
    """NVIDIA's FLIP, mean over the pictures."""
    max_lpips: float | None = Field(default=None, ge=0, le=10)
    """LPIPS, mean over the pictures. Needs `lpipsUri`."""
    lpips_uri: Uri | None = None
    """TorchScript module of LPIPS: two pictures [B, 3, H, W] in [-1, 1] to distances [B]."""
    max_clip_drop: float | None = Field(default=None, ge=0, le=100)
    """Largest fall of the mean CLIP score (100 × cosine). Needs `clipUri`."""
    clip_uri: Uri | None = None
    """A transformers CLIP folder."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_lpips is not None and self.lpips_uri is None:
            raise ValueError(LPIPS_SENTENCE)
        if self.max_clip_drop is not None and self.clip_uri is None:
            raise ValueError(CLIP_SENTENCE)
        return self


class Optimization(ApiModel):
    """How far the model may be changed to be faster."""

    quantization: Quantization = Quantization()
    """Low-precision formats."""
    step_cache: StepCache = StepCache()
    """Leaving out denoising steps."""
    calibration: Calibration = Calibration()
    """What scales, cache and quality are measured on."""
    quality_budget: QualityBudget = QualityBudget(min_psnr=30.0)
    """What the result must hold to be served."""


_MASK = "self.optimization.stepCache.mask"
_SAMPLING = "self.model.sampling"
_STEPS = f"(has({_SAMPLING}.sigmas) ? size({_SAMPLING}.sigmas) : {_SAMPLING}.steps)"
MASK_LENGTH_RULE = CelRule(
    f"!has({_MASK}) || (!has({_SAMPLING}.sigmas) && !has({_SAMPLING}.steps)) || size({_MASK}) == {_STEPS}",
    "stepCache.mask has %d entries, and model.sampling has %d steps; give one entry for each step",
    (f"size({_MASK})", _STEPS),
)


def check_mask(sampling: Sampling, step_cache: StepCache) -> None:
    """Raise `ValueError` where an explicit mask has not one entry for each explicit step; says what `MASK_LENGTH_RULE` says."""
    steps = sampling.steps if sampling.sigmas is None else len(sampling.sigmas)
    if step_cache.mask is not None and steps is not None and len(step_cache.mask) != steps:
        entries = len(step_cache.mask)
        raise ValueError(f"stepCache.mask has {entries} entries, and model.sampling has {steps} steps; give one entry for each step")
