"""What no schema sees is still found before anything is built."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from diffusion_api.checks import find_problems, require_workable
from diffusion_api.conditions import Reason
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_api.parsing import InvalidSpecError, parse_deployment
from tests.unit.diffusion_api.strategies import EXAMPLE


def spec(accelerator: dict[str, Any], optimization: dict[str, Any]) -> DiffusionDeploymentSpec:
    resource = copy.deepcopy(EXAMPLE)
    resource["spec"] |= {"accelerator": accelerator, "optimization": optimization}
    return parse_deployment(resource).spec


def test_a_format_that_the_gpu_cannot_run_names_those_that_it_can() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        require_workable(spec({"product": "NVIDIA-L4"}, {"quantization": {"format": "NVFP4"}}))
    expected = "spec.optimization.quantization.format: NVIDIA-L4 (compute capability 8.9) cannot run NVFP4; it can run None, INT8, FP8"
    assert str(caught.value) == expected
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_a_components_format_is_checked_too() -> None:
    found = find_problems(spec({"product": "NVIDIA-L4"}, {"quantization": {"components": {"vae": {"format": "MXFP8"}}}}), root="")
    assert [problem.path for problem in found] == ["optimization.quantization.components.vae.format"]


@pytest.mark.parametrize("format", ["None", "INT8", "FP8", "MXFP8", "NVFP4"])
def test_a_cpu_simulates_every_format(format: str) -> None:
    assert not find_problems(spec({"product": "CPU"}, {"quantization": {"format": format}}))


def test_the_compiler_for_rtx_gpus_is_refused_elsewhere() -> None:
    found = find_problems(spec({"product": "NVIDIA-B200", "compiler": "TensorRTRTX"}, {}))
    assert [problem.path for problem in found] == ["spec.accelerator.compiler"]
    assert not find_problems(spec({"product": "NVIDIA-L4", "compiler": "TensorRTRTX"}, {}))


def test_a_mig_profile_must_be_that_of_the_product() -> None:
    product = "NVIDIA-B200-MIG-1g.23gb"
    assert find_problems(spec({"product": product, "migProfile": "2g.45gb"}, {}))
    assert not find_problems(spec({"product": product, "migProfile": "1g.23gb"}, {}))


def test_a_search_needs_a_budget_and_an_explicit_format_does_not() -> None:
    assert [p.path for p in find_problems(spec({"product": "CPU"}, {"qualityBudget": {}}))] == ["spec.optimization.qualityBudget"]
    assert not find_problems(spec({"product": "CPU"}, {"qualityBudget": {}, "quantization": {"format": "INT8"}}))
    assert not find_problems(spec({"product": "CPU"}, {}))
