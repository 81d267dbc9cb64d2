from __future__ import annotations

import pytest

from diffusion_api.accelerator import Accelerator
from diffusion_api.build_job import BuildJob
from diffusion_api.model_spec import ModelSource, Shape
from diffusion_api.optimization import ComponentQuantization, FormatChoice, Optimization, Quantization, QuantizationFormat
from diffusion_api.recipe import Precision
from engine_builder.errors import UnsupportedTargetError
from engine_builder.planning import candidates, is_emulated


def job(product: str, **quantization) -> BuildJob:
    return BuildJob(
        model=ModelSource(uri="file:///model"),
        shapes=(Shape(width=64, height=64),),
        optimization=Optimization(quantization=Quantization(**quantization)),
        accelerator=Accelerator(product=product),
    )


def transformer_formats(wanted: BuildJob) -> list[str]:
    return [candidate.recipe.components["transformer"].label for candidate in candidates(wanted)]


def test_auto_tries_the_fastest_expected_first_and_always_the_unquantized():
    assert transformer_formats(job("CPU")) == ["INT8", "INT8 SmoothQuant", "unquantized"]
    assert transformer_formats(job("NVIDIA-B200"))[:2] == ["NVFP4", "NVFP4 AWQ"]
    assert transformer_formats(job("NVIDIA-B200"))[-1] == "unquantized"


def test_auto_leaves_out_what_the_gpu_has_no_kernels_for():
    assert transformer_formats(job("NVIDIA-L4")) == ["FP8", "INT8", "INT8 SmoothQuant", "unquantized"]


def test_a_named_format_is_the_only_candidate():
    assert transformer_formats(job("NVIDIA-B200", format=FormatChoice.FP8)) == ["FP8"]


def test_a_format_without_kernels_is_refused_with_those_there_are():
    with pytest.raises(UnsupportedTargetError, match=r"NVIDIA-L4 .*NVFP4.*None, INT8, FP8"):
        candidates(job("NVIDIA-L4", format=FormatChoice.NVFP4))


def test_a_component_without_kernels_is_refused_too():
    components = {"textEncoder": ComponentQuantization(format=QuantizationFormat.NVFP4)}
    with pytest.raises(UnsupportedTargetError, match="NVFP4"):
        candidates(job("NVIDIA-L4", format=FormatChoice.FP8, components=components))


@pytest.mark.parametrize("quantization", [QuantizationFormat.FP8, QuantizationFormat.MXFP8, QuantizationFormat.NVFP4])
def test_what_a_cpu_has_no_kernels_for_is_emulated_in_fp32_and_called_simulated(quantization):
    (candidate,) = candidates(job("CPU", format=FormatChoice(quantization.value)))
    assert candidate.simulated
    assert candidate.recipe.precision is Precision.FP32
    assert is_emulated(quantization, Accelerator(product="CPU"))
    assert not is_emulated(quantization, Accelerator(product="NVIDIA-B200"))


def test_a_mix_names_each_component():
    components = {"textEncoder": ComponentQuantization(format=QuantizationFormat.FP8)}
    (candidate,) = candidates(job("NVIDIA-B200", format=FormatChoice.NVFP4, components=components))
    assert candidate.recipe.label == "NVFP4 + textEncoder FP8 + BF16, no step cache"
