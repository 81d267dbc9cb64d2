from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from engine_builder.export import check_parity, example_inputs, trace_graph
from engine_builder.quantization import quantize
from engine_builder.workflow.exporting import cast_weights
from tests.builder.export.conftest import RECIPES, TRACED, block_graph, calibrate

SHAPES = (({"tokens": 6}, 2), ({"tokens": 11}, 3))


@pytest.mark.parametrize("format", RECIPES)
def test_a_bf16_graph_in_fp32_computes_what_torch_does_with_the_same_numbers(tmp_path: Path, format: str) -> None:
    graph = block_graph()
    quantize(graph.module, RECIPES[format], calibrate=calibrate, exclude=[])
    cast_weights(graph, torch.bfloat16)
    traced = trace_graph(graph, TRACED)
    narrow, wide = traced.write(tmp_path / "narrow.onnx"), traced.widened().write(tmp_path / "wide.onnx", emulate=True)
    cast_weights(graph, torch.float32)
    assert check_parity(wide, graph, [example_inputs(graph, axes, batch) for axes, batch in SHAPES]) < 1e-4
    assert wide.quantizers == narrow.quantizers
    assert _types(narrow.path) >= {ir.DataType.BFLOAT16}
    assert ir.DataType.BFLOAT16 not in _types(wide.path)


def _types(path: Path) -> set[ir.DataType | None]:
    graph = ir.load(path).graph
    casts = {ir.DataType(node.attributes["to"].as_int()) for node in graph if node.op_type == "Cast"}
    return casts | {value.dtype for value in graph.initializers.values()}
