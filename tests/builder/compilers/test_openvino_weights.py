"""Which constants of a quantized graph are stored in 16 bits."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as opset

from engine_builder.compilers.openvino_weights import store_weights_in_fp16

WIDTH = 64


def model(weight: np.ndarray, *, quantized: bool = True) -> openvino.Model:
    x = opset.parameter([-1, WIDTH], np.float32, name="x")
    bounds = [np.float32(bound) for bound in (-1, 1, -1, 1)]
    rounded = opset.fake_quantize(x, *bounds, 255) if quantized else x
    return openvino.Model([opset.matmul(rounded, opset.constant(weight), False, False)], [x], "linear")


def types(model: openvino.Model) -> set[str]:
    return {node.get_element_type().to_string() for node in model.get_ordered_ops() if node.get_type_name() == "Constant"}


def test_a_matrix_of_a_quantized_graph_is():
    graph = model(np.ones((WIDTH, WIDTH), np.float32))
    assert store_weights_in_fp16(graph) == 1
    assert "f16" in types(graph)


@pytest.mark.parametrize(
    ("weight", "quantized"),
    [
        (np.full((WIDTH, WIDTH), 1e5, np.float32), True),
        (np.full((WIDTH, WIDTH), np.nan, np.float32), True),
        (np.ones((WIDTH, 1), np.float32), True),
        (np.ones((WIDTH, WIDTH), np.float32), False),
    ],
    ids=["too large a number", "no number", "few elements", "a graph that save_model compresses"],
)
def test_others_are_not(weight: np.ndarray, quantized: bool):
    graph = model(weight, quantized=quantized)
    assert store_weights_in_fp16(graph) == 0
    assert types(graph) == {"f32"}
