from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusion_api.optimization import QuantizationFormat, ScaleMode
from diffusion_api.recipe import ComponentRecipe
from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.quantization import quantize, restore_quantized, save_quantized
from tests.builder.quantization.conftest import RECIPES, Network, calibrate, inputs

BLOCK_FORMATS = (QuantizationFormat.MXFP8, QuantizationFormat.NVFP4)
Make = Callable[[], Network]
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.label)


def relative_error(network: nn.Module, reference: nn.Module) -> float:
    with torch.no_grad():
        expected = reference(inputs(1))
        return float((network(inputs(1)) - expected).norm() / expected.norm())


def scales(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.named_buffers() if "quantizer" in name}


@every_recipe
def test_a_layer_is_quantized_or_named_as_excluded(make_network: Make, recipe: ComponentRecipe) -> None:
    network = make_network()
    summary = quantize(network, recipe, calibrate=calibrate, exclude=["*norm*"])
    layers = {name for name, module in make_network().named_modules() if isinstance(module, nn.Linear)}
    assert {*summary.quantized, *summary.excluded} == layers
    assert not {*summary.quantized} & {*summary.excluded}
    assert summary.sensitive == ("norm_in",)
    assert ("odd" in summary.indivisible) == (recipe.format in BLOCK_FORMATS)
    assert {"up", "down"} <= {*summary.quantized}
    assert 0 < relative_error(network, make_network()) < 0.25
    assert summary.weight_bytes < sum(p.numel() * p.element_size() for p in make_network().parameters())


@every_recipe
def test_equal_calibration_gives_equal_scales(make_network: Make, recipe: ComponentRecipe) -> None:
    first, second = make_network(), make_network()
    for network in (first, second):
        quantize(network, recipe, calibrate=calibrate, exclude=["*norm*"])
    left, right = scales(first), scales(second)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@every_recipe
def test_a_saved_component_is_restored_bit_by_bit_and_its_file_holds_no_code(
    make_network: Make, recipe: ComponentRecipe, tmp_path: Path
) -> None:
    network, fresh = make_network(), make_network()
    quantize(network, recipe, calibrate=calibrate, exclude=["*norm*"])
    save_quantized(network, recipe, tmp_path / "scales.safetensors")
    assert restore_quantized(fresh, tmp_path / "scales.safetensors") == recipe
    with torch.no_grad():
        assert torch.equal(network(inputs(1)), fresh(inputs(1)))


def test_a_layer_that_no_input_reaches_keeps_high_precision(make_network: Make) -> None:
    recipe = ComponentRecipe(format=QuantizationFormat.INT8, mode=ScaleMode.STATIC)
    assert quantize(make_network(), recipe, calibrate=calibrate, exclude=[]).unreached == ("unused",)


def test_dynamic_formats_are_not_calibrated(make_network: Make) -> None:
    def refuse(_: nn.Module) -> None:
        raise AssertionError("calibrated")

    for dynamic in (QuantizationFormat.FP8, QuantizationFormat.MXFP8, QuantizationFormat.NVFP4):
        quantize(make_network(), ComponentRecipe(format=dynamic, mode=ScaleMode.DYNAMIC), calibrate=refuse, exclude=[])


@pytest.mark.parametrize("format", [QuantizationFormat.FP8, QuantizationFormat.MXFP8, QuantizationFormat.NVFP4])
def test_dynamic_activations_of_a_sample_do_not_depend_on_its_neighbours(make_network: Make, format: QuantizationFormat) -> None:
    network = make_network()
    quantize(network, ComponentRecipe(format=format, mode=ScaleMode.DYNAMIC), calibrate=calibrate, exclude=[])
    batch = inputs(2)
    loud = torch.cat([batch[:1], 50 * batch[1:]])
    with torch.no_grad():
        assert torch.equal(network(batch)[0], network(loud)[0])


def test_the_layer_that_yields_infinity_is_named(make_network: Make) -> None:
    network = make_network()
    network.up.weight[0, 0] = torch.inf
    recipe = ComponentRecipe(format=QuantizationFormat.FP8, mode=ScaleMode.STATIC)
    with pytest.raises(InvalidModelError, match=r"layer (up|down)"):
        quantize(network, recipe, calibrate=calibrate, exclude=["*norm*"])


def test_formats_fall_in_the_order_of_their_bits(make_network: Make) -> None:
    errors = {}
    for recipe in RECIPES:
        network = make_network()
        quantize(network, recipe, calibrate=calibrate, exclude=["*norm*", "odd"])
        errors[recipe.label] = relative_error(network, make_network())
    assert max(errors["INT8"], errors["FP8"], errors["FP8 Dynamic"], errors["MXFP8"]) < errors["NVFP4 SVDQuant"] < errors["NVFP4"]


def test_a_component_is_not_quantized_twice(make_network: Make) -> None:
    network = make_network()
    quantize(network, RECIPES[0], calibrate=calibrate, exclude=[])
    with pytest.raises(ValueError, match="already"):
        quantize(network, RECIPES[0], calibrate=calibrate, exclude=[])


def test_a_component_without_a_layer_to_quantize_is_refused(make_network: Make) -> None:
    with pytest.raises(InvalidJobError, match="no layer can be INT8"):
        quantize(make_network(), RECIPES[0], calibrate=calibrate, exclude=["*"])


def test_format_none_changes_nothing(make_network: Make) -> None:
    network = make_network()
    summary = quantize(network, ComponentRecipe(), calibrate=calibrate, exclude=[])
    assert not summary.quantized
    assert not scales(network)


def test_a_file_of_something_else_is_refused(make_network: Make, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidModelError, match="no quantized component"):
        restore_quantized(make_network(), tmp_path / "other.safetensors")
    quantize(network := make_network(), RECIPES[0], calibrate=calibrate, exclude=[])
    save_quantized(network, RECIPES[0], tmp_path / "scales.safetensors")
    with pytest.raises(InvalidModelError, match="another component"):
        restore_quantized(nn.Sequential(nn.Linear(4, 4)), tmp_path / "scales.safetensors")
