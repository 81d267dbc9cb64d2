"""The rewritten rotary embedding is the same arithmetic, and only that pattern is touched."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as opset

from engine_builder.compilers.openvino_rotary import pair_rotation, rewrite_rotary

WIDTH, HEADS = 8, 3


def rotary_model(*, odd_start: int = 1, swap_terms: bool = False) -> openvino.Model:
    """What the exporter writes for `rotate` of the FLUX.2 blocks."""
    x = opset.parameter([-1, -1, HEADS, WIDTH], np.float32, name="x")
    cos, sin = (opset.parameter([-1, -1, 1, WIDTH // 2], np.float32, name=name) for name in ("cos", "sin"))
    pairs = opset.reshape(x, np.array([0, 0, HEADS, WIDTH // 2, 2]), True)

    def channel(start: int) -> openvino.Node:
        return opset.squeeze(opset.slice(pairs, [start], [start + 1], [1], [-1]), -1)

    def times(channel: openvino.Node, table: openvino.Node) -> openvino.Node:
        return opset.multiply(table, channel) if swap_terms else opset.multiply(channel, table)

    even, odd = channel(0), channel(odd_start)
    real = opset.subtract(times(even, cos), times(odd, sin))
    imaginary = opset.add(times(odd, cos), times(even, sin))
    stacked = opset.concat([opset.unsqueeze(real, -1), opset.unsqueeze(imaginary, -1)], -1)
    return openvino.Model([opset.reshape(stacked, np.array([0, 0, HEADS, WIDTH]), True)], [x, cos, sin], "rotary")


def run(model: openvino.Model) -> np.ndarray:
    random = np.random.default_rng(0)
    shapes = ((2, 5, HEADS, WIDTH), (2, 5, 1, WIDTH // 2), (2, 5, 1, WIDTH // 2))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([random.normal(size=shape).astype(np.float32) for shape in shapes])[0].copy()


@pytest.mark.parametrize("swap_terms", [False, True])
def test_the_rewritten_graph_computes_the_same(swap_terms):
    model = rotary_model(swap_terms=swap_terms)
    expected = run(model)
    assert rewrite_rotary(model) == 1
    np.testing.assert_allclose(run(model), expected, rtol=1e-6, atol=1e-6)


def test_no_slices_are_left():
    model = rotary_model()
    rewrite_rotary(model)
    assert {"Slice", "Concat"}.isdisjoint(node.get_type_name() for node in model.get_ordered_ops())


def test_another_pattern_stays_as_it_is():
    assert rewrite_rotary(rotary_model(odd_start=0)) == 0


def test_a_graph_is_rewritten_once():
    model = rotary_model()
    rewrite_rotary(model)
    assert rewrite_rotary(model) == 0


def test_pairs_are_turned_by_a_right_angle():
    np.testing.assert_array_equal(np.array([1.0, 2.0, 3.0, 4.0]) @ pair_rotation(4), [-2.0, 1.0, -4.0, 3.0])
