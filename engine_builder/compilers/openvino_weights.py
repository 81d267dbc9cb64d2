"""Stores what a quantized graph leaves unquantized in 16 bits.

`openvino.save_model(compress_to_fp16=True)` does it for a graph in floating point, and leaves a graph with `FakeQuantize` as it is (seen
with 2026.4): the layers that keep high precision would lie in the file at twice the size that they have in the checkpoint.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

LEAST_ELEMENTS = 1024
"""Smaller constants (scales, norms, biases) are not worth a node."""
LARGEST_FP16 = float(np.finfo(np.float16).max)


def store_weights_in_fp16(model: Any) -> int:
    """Turn the FP32 matrices of a quantized OpenVINO model into FP16 with a conversion, in place, and return their number.

    What FP16 cannot hold stays as it is. A graph without `FakeQuantize` is left to `openvino.save_model`.
    """
    nodes = model.get_ordered_ops()
    if all(node.get_type_name() != "FakeQuantize" for node in nodes):
        return 0
    weights = [node for node in nodes if _is_matrix(node)]
    for node in weights:
        _replace(node)
    return len(weights)


def _is_matrix(node: Any) -> bool:
    if node.get_type_name() != "Constant" or str(node.get_element_type().to_string()) != "f32":
        return False
    consumers = {target.get_node().get_type_name() for target in node.output(0).get_target_inputs()}
    if consumers != {"MatMul"} or node.get_byte_size() < LEAST_ELEMENTS * np.dtype(np.float32).itemsize:
        return False
    return bool(np.abs(node.data).max() <= LARGEST_FP16)


def _replace(node: Any) -> None:
    opset = importlib.import_module("openvino.opset13")
    short = opset.convert(opset.constant(node.data.astype(np.float16)), "f32")
    for consumer in node.output(0).get_target_inputs():
        consumer.replace_source_output(short.output(0))
