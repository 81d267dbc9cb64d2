from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir
import openvino
import pytest
import torch

from engine_builder.export import check_parity, example_inputs
from engine_builder.quantization.backend import FAKE_QUANTIZE_DOMAIN
from tests.builder.export.conftest import BLOCK_FORMATS, RECIPES, WIDTH, Case
from tests.support.processor import has_vnni

ExportCase = Callable[..., Case]
SHAPES = (({"tokens": 6}, 2), ({"tokens": 11}, 3), ({"tokens": 1}, 1))


@pytest.mark.parametrize("format", RECIPES)
def test_the_file_computes_what_torch_computes_at_any_batch_and_length(export_case: ExportCase, format: str) -> None:
    case = export_case(format, emulate=format in BLOCK_FORMATS)
    assert case.exported.portable
    assert check_parity(case.exported, case.graph, [example_inputs(case.graph, axes, batch) for axes, batch in SHAPES]) < 1e-4


@pytest.mark.parametrize("format", RECIPES)
def test_openvino_computes_the_emulated_file_as_torch_does(export_case: ExportCase, format: str) -> None:
    case = export_case(format, emulate=True)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(case.exported.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = example_inputs(case.graph, {"tokens": 33}, 3)
    with torch.no_grad():
        expected = case.graph.module(*inputs.values()).numpy()
    actual = compiled({name: value.numpy() for name, value in inputs.items()})[0]
    tolerance = 1e-3 if has_vnni() or format != "int8" else 0.2  # Without VNNI large INT8 products saturate.
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < tolerance


@pytest.mark.parametrize("format", ["fp8", "fp8-dynamic"])
def test_emulated_fp8_computes_what_torch_computes(export_case: ExportCase, format: str) -> None:
    case = export_case(format, emulate=True)
    assert check_parity(case.exported, case.graph, [example_inputs(case.graph, axes, batch) for axes, batch in SHAPES]) < 1e-4


@pytest.mark.parametrize("format", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_quantizer_is_left_and_borders_are_fp32_with_named_axes(export_case: ExportCase, format: str, dtype: torch.dtype) -> None:
    model = ir.load(export_case(format, dtype=dtype).exported.path)
    assert not [node for node in model.graph if node.domain == FAKE_QUANTIZE_DOMAIN]
    assert [(value.name, str(value.shape), value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ("x", "[batch,tokens,64]", ir.DataType.FLOAT),
        ("shift", "[batch,64]", ir.DataType.FLOAT),
        ("y", "[batch,tokens,64]", ir.DataType.FLOAT),
    ]


@pytest.mark.parametrize("format", [name for name in RECIPES if name != "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_in_the_file_are_those_of_the_simulation_exactly(export_case: ExportCase, format: str, dtype: torch.dtype) -> None:
    case = export_case(format, dtype=dtype)
    tensors = {name: value.const_value for name, value in ir.load(case.exported.path).graph.initializers.items()}
    for layer in ("up", "down"):
        module = case.graph.module.get_submodule(layer)
        expected = module.weight_quantizer(module.weight).float().numpy()
        codes = next(tensor for name, tensor in tensors.items() if name.endswith(f"{layer}.weight.codes"))
        scale = next(tensor for name, tensor in tensors.items() if name.startswith(codes.name.removesuffix(".codes") + ".scale"))
        decoded = _decode(codes, scale, tensors.get(codes.name.removesuffix(".codes") + ".tensor_scale"), expected.shape)
        rounded = torch.from_numpy(decoded).to(dtype).float().numpy()
        assert np.array_equal(rounded, expected), layer


def test_low_precision_weights_take_their_bits_in_the_file(export_case: ExportCase) -> None:
    weights = 4 * WIDTH * WIDTH
    graph = export_case("none").exported.size_bytes - 4 * weights
    for name, bits in (("int8", 8), ("fp8", 8), ("mxfp8", 8.25), ("nvfp4", 4.5)):
        assert export_case(name).exported.size_bytes < graph + weights * bits / 8 + 12_000, name


def test_a_dynamic_fp8_product_runs_on_fp8_operands(export_case: ExportCase) -> None:
    model = ir.load(export_case("fp8-dynamic").exported.path)
    for node in model.graph:
        if node.op_type == "MatMul":
            assert [value.producer().op_type for value in node.inputs if value is not None] == ["DequantizeLinear"] * 2


def _decode(
    codes: ir.TensorProtocol, scale: ir.TensorProtocol, tensor_scale: ir.TensorProtocol | None, shape: tuple[int, ...]
) -> np.ndarray:
    values, factor = codes.numpy().astype(np.float32), scale.numpy()
    if codes.dtype is ir.DataType.FLOAT4E2M1:
        assert tensor_scale is not None
        return values * np.repeat(factor.astype(np.float32) * tensor_scale.numpy(), 16, axis=-1)
    if factor.dtype == np.uint8:
        return values * np.repeat(np.exp2(factor.astype(np.float32) - 127), 32, axis=-1)
    factor = factor.astype(ml_dtypes.bfloat16).astype(np.float32) if factor.dtype == ml_dtypes.bfloat16 else factor
    # INT8 and FP8 are stored transposed, with a scale for the tensor or for each output channel.
    decoded = values * factor
    return decoded.T if decoded.T.shape == shape else decoded
