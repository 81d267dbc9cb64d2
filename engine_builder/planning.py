"""Which recipes a job asks for, and in which order to try them. Pure: imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffusion_api.accelerator import Accelerator, runs_natively
from diffusion_api.build_job import BuildJob
from diffusion_api.optimization import (
    ALGORITHMS,
    MODES,
    ComponentQuantization,
    FormatChoice,
    QuantizationAlgorithm,
    QuantizationFormat,
    ScaleMode,
)
from diffusion_api.recipe import ComponentRecipe, Precision, Recipe
from engine_builder.errors import UnsupportedTargetError

# How many times faster than the unquantized engine a transformer is expected to be. The search only orders by it; what is published
# was measured. Source: GPU, torchao's FLUX and LTX-2 figures on B200 (up to 1.26 for MXFP8, 1.68 for NVFP4); CPU,
# `benchmarks/cpu_backends.py`. Formats that the CPU only simulates are slower than no quantization at all.
GPU_SPEEDUP = {
    QuantizationFormat.NONE: 1.0,
    QuantizationFormat.MXFP8: 1.26,
    QuantizationFormat.INT8: 1.28,
    QuantizationFormat.FP8: 1.30,
    QuantizationFormat.NVFP4: 1.68,
}
CPU_SPEEDUP = {
    QuantizationFormat.NONE: 1.0,
    QuantizationFormat.INT8: 1.33,
    QuantizationFormat.FP8: 0.9,
    QuantizationFormat.MXFP8: 0.3,
    QuantizationFormat.NVFP4: 0.3,
}
# What the algorithm's extra work leaves of that: input scaling, or a low-rank branch beside each layer.
ALGORITHM_COST = {
    QuantizationAlgorithm.MAX: 1.0,
    QuantizationAlgorithm.SMOOTH_QUANT: 0.99,
    QuantizationAlgorithm.AWQ: 0.98,
    QuantizationAlgorithm.SVD_QUANT: 0.93,
}
DYNAMIC_COST = 0.95


@dataclass(frozen=True)
class Candidate:
    """A recipe that the search will score; its step cache is chosen afterwards."""

    recipe: Recipe
    expected_speedup: float
    simulated: bool


def candidates(job: BuildJob) -> tuple[Candidate, ...]:
    """Return the recipes that a job asks for, the fastest expected first.

    Raises:
        UnsupportedTargetError: the GPU has no kernel for a format that the job names; change the format or the accelerator.
    """
    others = {name: component_recipe(choice) for name, choice in job.optimization.quantization.components.items()}
    for recipe in others.values():
        require_kernels(recipe.format, job.accelerator)
    found = [_candidate(transformer, others, job.accelerator) for transformer in _transformer_recipes(job)]
    return tuple(sorted(found, key=lambda candidate: -candidate.expected_speedup))


def component_recipe(choice: ComponentQuantization) -> ComponentRecipe:
    """Fill in a format's usual mode and plain algorithm."""
    if choice.format is QuantizationFormat.NONE:
        return ComponentRecipe()
    return ComponentRecipe(
        format=choice.format,
        mode=choice.mode or MODES[choice.format][0],
        algorithm=choice.algorithm or QuantizationAlgorithm.MAX,
    )


def require_kernels(format: QuantizationFormat, accelerator: Accelerator) -> None:
    """Refuse a format that the GPU cannot run; a CPU may simulate any, and the report says so."""
    if accelerator.is_cpu or runs_natively(format, accelerator):
        return
    runnable = [other.value for other in QuantizationFormat if runs_natively(other, accelerator)]
    raise UnsupportedTargetError(
        f"{accelerator.product} (compute capability {accelerator.resolved_compute_capability}) has no kernels for {format}; "
        f"set optimization.quantization.format to one of {', '.join(runnable)}, or name a newer accelerator.product"
    )


def is_emulated(quantization: QuantizationFormat, accelerator: Accelerator) -> bool:
    """Tell whether a format is exported as plain arithmetic: a CPU has kernels for INT8 alone, and OpenVINO does not round to FP8."""
    return not runs_natively(quantization, accelerator) and accelerator.is_cpu


def _transformer_recipes(job: BuildJob) -> Iterator[ComponentRecipe]:
    wanted = job.optimization.quantization
    if wanted.format is not FormatChoice.AUTO:
        named = QuantizationFormat(wanted.format)
        require_kernels(named, job.accelerator)
        yield component_recipe(ComponentQuantization(format=named, mode=wanted.mode, algorithm=wanted.algorithm))
        return
    for tried in QuantizationFormat:
        if not runs_natively(tried, job.accelerator):
            continue
        if tried is QuantizationFormat.NONE:
            yield ComponentRecipe()
        for algorithm in ALGORITHMS[tried]:
            yield ComponentRecipe(format=tried, mode=MODES[tried][0], algorithm=algorithm)


def _candidate(transformer: ComponentRecipe, others: dict[str, ComponentRecipe], accelerator: Accelerator) -> Candidate:
    speedup = (CPU_SPEEDUP if accelerator.is_cpu else GPU_SPEEDUP)[transformer.format]
    if transformer.algorithm is not None:
        speedup *= ALGORITHM_COST[transformer.algorithm]
    if transformer.mode is ScaleMode.DYNAMIC and transformer.format is QuantizationFormat.FP8:
        speedup *= DYNAMIC_COST
    components = {"transformer": transformer, **others}
    simulated = any(not runs_natively(component.format, accelerator) for component in components.values())
    # BF16 would round what the emulation has rounded to a finer or coarser grid already.
    recipe = Recipe(components=components, precision=Precision.FP32 if simulated else Precision.BF16)
    return Candidate(recipe, speedup, simulated)
