"""A BF16 graph in FP32: the same operators on the same numbers, for runtimes that know no BF16."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def widened(model: ir.Model) -> ir.Model:
    """Return a copy in which FP32 stands wherever BF16 stood; its weights are read when they are written."""
    copy = model.clone()
    for value in (*copy.graph.inputs, *copy.graph.initializers.values()):
        _widen_value(value)
    for node in copy.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type is ir.AttributeType.TENSOR and attribute.as_tensor().dtype is _NARROW:
                node.attributes[name] = ir.AttrTensor(name, _wide(attribute.as_tensor()))
            elif attribute.type is ir.AttributeType.INT and (node.op_type, name) in _TYPES and attribute.as_int() == _NARROW:
                node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
        for value in node.outputs:
            _widen_value(value)
    return copy


_TYPES = {("Cast", "to"), ("Attention", "softmax_precision"), ("LayerNormalization", "stash_type"), ("RMSNormalization", "stash_type")}
"""Attributes that name a type."""


def _widen_value(value: ir.Value) -> None:
    if value.dtype is _NARROW:
        value.dtype = _WIDE
    if value.const_value is not None and value.const_value.dtype is _NARROW:
        value.const_value = _wide(value.const_value)


def _wide(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    def values() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float32))

    return ir.LazyTensor(values, _WIDE, ir.Shape(tensor.shape), name=tensor.name)
