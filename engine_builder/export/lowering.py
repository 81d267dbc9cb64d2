"""Turns each `FakeQuantize` node into what a runtime executes: standard Q/DQ, TensorRT's block formats, or plain arithmetic.

What TensorRT can and cannot do decides the forms (seen in TensorRT-RTX 1.7, strongly typed):

- INT8, FP8: QuantizeLinear / DequantizeLinear with constant scales; zero points must be 0; a Cast to FP8 is refused.
- FP8 with a scale per token: no quantizer takes a scale that is computed at run time. So the activation is divided by its scale first
  and quantized with the constant scale 1; the product with the FP8 weight is multiplied by the scale, which each row of it shares. The
  matrix product itself then runs in FP8.
- MXFP8, NVFP4: the operators of the domain `trt`, which ONNX has no words for; weights as constants with block scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from onnx_ir import tape

from engine_builder.export import emulation
from engine_builder.export.weights import LazyWeight, to_numpy, torch_tensor
from engine_builder.quantization.backend import FAKE_QUANTIZE, FAKE_QUANTIZE_DOMAIN
from engine_builder.quantization.numerics import (
    AMAX_FLOOR,
    E4M3_MAX,
    MXFP8_BLOCK,
    NVFP4_BLOCK,
    Encoding,
    linear_scale,
    nvfp4_tensor_scale,
)

TRT_DOMAIN = "trt"
_TORCH_DTYPES = {ir.DataType.FLOAT: torch.float32, ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}
_FP8, _FP4 = ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1


class Lowering:
    """Rewrites one graph."""

    def __init__(self, model: ir.Model, *, emulate: bool) -> None:
        self._graph = model.graph
        self._emulate = emulate

    def run(self) -> int:
        """Lower every quantizer; returns how many there were."""
        nodes = [node for node in self._graph if (node.domain, node.op_type) == (FAKE_QUANTIZE_DOMAIN, FAKE_QUANTIZE)]
        for node in nodes:
            values = node.inputs[0]
            assert values is not None
            encoding = Encoding(node.attributes["encoding"].as_string())
            amax = torch_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
            weight = torch_tensor(values)
            if weight is None:
                self._lower_activation(node, values, encoding, amax)
            else:
                self._lower_weight(node, values, weight, encoding, amax)
        return len(nodes)

    def _lower_weight(self, node: ir.Node, values: ir.Value, weight: torch.Tensor, encoding: Encoding, amax: torch.Tensor | None) -> None:
        emulated = self._emulate and encoding is not Encoding.INT8
        transposes = _only_transposes(node.outputs[0])
        push = bool(transposes) and (emulated or encoding in (Encoding.INT8, Encoding.FP8))
        lazy = LazyWeight(weight, encoding, amax, transposed=push)
        assert values.dtype is not None
        name, build = values.name or "weight", tape.Tape()
        if emulated:
            result = build.initializer(lazy.decoded(name + ".decoded", values.dtype))
            result.shape, result.dtype = ir.Shape(lazy.shape), values.dtype
        elif encoding in (Encoding.INT8, Encoding.FP8):
            assert amax is not None
            scale, axis = _scale_constant(build, name, amax, encoding, values.dtype)
            codes = build.initializer(lazy.codes(name + ".codes"))
            attributes = {} if axis is None else {"axis": weight.ndim - 1 - axis if push else axis}
            result = build.op("DequantizeLinear", [codes, scale], attributes)
        elif encoding is Encoding.NVFP4:
            assert amax is not None
            tensor_scale = _scalar(build, name + ".tensor_scale", nvfp4_tensor_scale(amax))
            scales = build.initializer(lazy.block_scales(name + ".scales", NVFP4_BLOCK))
            codes = build.initializer(lazy.codes(name + ".codes"))
            result = _nvfp4_values(build, codes, scales, tensor_scale, values.dtype)
        else:
            scales = build.initializer(lazy.block_scales(name + ".scales", MXFP8_BLOCK))
            codes = build.initializer(lazy.codes(name + ".codes"))
            result = _mxfp8_values(build, codes, scales, values.dtype)
        if push:
            for transpose in transposes:
                self._replace(transpose, build, result)
                build = tape.Tape()
            self._graph.remove(node, safe=True)
        else:
            self._replace(node, build, result)

    def _lower_activation(self, node: ir.Node, values: ir.Value, encoding: Encoding, amax: torch.Tensor | None) -> None:
        build = tape.Tape()
        assert values.dtype is not None
        name = node.outputs[0].name or "activation"
        match encoding:
            case Encoding.FP8 | Encoding.FP8_TOKEN if self._emulate:
                scale = None if amax is None else linear_scale(amax, encoding, _TORCH_DTYPES[values.dtype])
                result = emulation.linear_quantize(build, values, scale)
            case Encoding.INT8 | Encoding.FP8:
                assert amax is not None
                constant, _ = _scale_constant(build, name, amax.reshape(-1)[:1], encoding, values.dtype)
                result = _quantize_dequantize(build, values, constant, constant, ir.DataType.INT8 if encoding is Encoding.INT8 else _FP8)
            case Encoding.FP8_TOKEN:
                self._lower_token_scaled(node, values, name)
                return
            case Encoding.NVFP4 | Encoding.MXFP8 if self._emulate:
                result = emulation.block_quantize(build, values, encoding, None if amax is None else nvfp4_tensor_scale(amax))
            case Encoding.NVFP4:
                assert amax is not None
                tensor_scale = _scalar(build, name + ".tensor_scale", nvfp4_tensor_scale(amax))
                attributes = {"axis": -1, "block_size": NVFP4_BLOCK, "scale_type": int(_FP8)}
                codes, scales = build.op_multi_out(
                    "TRT_FP4DynamicQuantize", [values, tensor_scale], attributes, domain=TRT_DOMAIN, version=1, num_outputs=2
                )
                result = _nvfp4_values(build, codes, scales, tensor_scale, values.dtype)
            case Encoding.MXFP8:
                attributes = {"axis": -1, "block_size": MXFP8_BLOCK, "output_dtype": int(_FP8)}
                codes, scales = build.op_multi_out(
                    "TRT_MXFP8DynamicQuantize", [values], attributes, domain=TRT_DOMAIN, version=1, num_outputs=2
                )
                result = _mxfp8_values(build, codes, scales, values.dtype)
        self._replace(node, build, result)

    def _lower_token_scaled(self, node: ir.Node, values: ir.Value, name: str) -> None:
        build, dtype = tape.Tape(), values.dtype
        assert dtype is not None
        wide = _cast(build, values, ir.DataType.FLOAT)
        last = _constant(build, name + ".axis", torch.tensor([-1]))
        amax = build.op("ReduceMax", [build.op("Abs", [wide]), last], {"keepdims": 1})
        floor = _scalar(build, name + ".floor", torch.tensor(AMAX_FLOOR))
        scale = build.op("Div", [build.op("Max", [amax, floor]), _scalar(build, name + ".largest", torch.tensor(E4M3_MAX))])
        one = _scalar(build, name + ".one", torch.tensor(1.0))
        one_out = one if dtype is ir.DataType.FLOAT else _scalar(build, name + ".one_out", torch.ones((), dtype=_TORCH_DTYPES[dtype]))
        unit = _quantize_dequantize(build, build.op("Div", [wide, scale]), one, one_out, _FP8)
        products = [use for use in node.outputs[0].consumers() if use.op_type == "MatMul" and use.inputs[0] is node.outputs[0]]
        if len(products) != len(node.outputs[0].uses()):  # Something else than a matrix product reads it: scale back at once.
            back = build.op("Mul", [_cast(build, unit, ir.DataType.FLOAT), scale])
            self._replace(node, build, _cast(build, back, dtype))
            return
        self._replace(node, build, unit)
        for product in products:
            after = tape.Tape()
            product_out = product.outputs[0]
            copy = after.op("MatMul", list(product.inputs))
            copy.dtype = dtype
            scaled = after.op("Mul", [_cast(after, copy, ir.DataType.FLOAT), scale])
            self._replace(product, after, _cast(after, scaled, dtype))
            assert not product_out.uses()

    def _replace(self, node: ir.Node, build: tape.Tape, result: ir.Value) -> None:
        """Put what `build` holds in the place of `node`."""
        old = node.outputs[0]
        if result.dtype is None:
            result.dtype = old.dtype or node.inputs[0].dtype if node.inputs[0] is not None else None
        if result.shape is None:
            result.shape = old.shape
        for value in build.initializers:
            self._graph.register_initializer(value)
        for new in build.nodes:
            for output in new.outputs:
                output.name = None  # The graph names it when the node comes in.
        self._graph.insert_before(node, build.nodes)
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)


def lower_quantizers(model: ir.Model, *, emulate: bool) -> int:
    """Lower every quantizer of a graph in place; returns how many there were.

    Args:
        model: With `FakeQuantize` nodes.
        emulate: Write FP8, MXFP8 and NVFP4 as plain arithmetic, for runtimes without such kernels.
    """
    count = Lowering(model, emulate=emulate).run()
    if any(node.domain == TRT_DOMAIN for node in model.graph):
        model.opset_imports[TRT_DOMAIN] = 1
    model.opset_imports.pop(FAKE_QUANTIZE_DOMAIN, None)
    return count


def _only_transposes(value: ir.Value) -> Sequence[ir.Node]:
    consumers: Sequence[ir.Node] = value.consumers()
    if value.is_graph_output() or any(c.op_type != "Transpose" or list(c.attributes["perm"].as_ints()) != [1, 0] for c in consumers):
        return ()
    return consumers


def _constant(build: tape.Tape, name: str, tensor: torch.Tensor) -> ir.Value:
    return build.initializer(ir.tensor(to_numpy(tensor), name=name))


def _scalar(build: tape.Tape, name: str, tensor: torch.Tensor) -> ir.Value:
    return _constant(build, name, tensor.reshape(()))


def _scale_constant(build: tape.Tape, name: str, amax: torch.Tensor, encoding: Encoding, dtype: ir.DataType) -> tuple[ir.Value, int | None]:
    """Return the scale of INT8 or FP8, and the axis that it runs along; None for one scale."""
    kind = _TORCH_DTYPES[dtype]
    scale = linear_scale(amax, encoding, kind).to(kind)
    if amax.numel() == 1:
        return _scalar(build, name + ".scale", scale), None
    axis = next(axis for axis, length in enumerate(amax.shape) if length > 1)
    return _constant(build, name + ".scale", scale.reshape(-1)), axis


def _quantize_dequantize(build: tape.Tape, values: ir.Value, scale: ir.Value, scale_out: ir.Value, dtype: ir.DataType) -> ir.Value:
    codes = build.op("QuantizeLinear", [values, scale], {"output_dtype": int(dtype)})
    return build.op("DequantizeLinear", [codes, scale_out])


def _nvfp4_values(build: tape.Tape, codes: ir.Value, scales: ir.Value, tensor_scale: ir.Value, dtype: ir.DataType) -> ir.Value:
    wide = build.op("DequantizeLinear", [scales, tensor_scale])
    values = build.op("DequantizeLinear", [codes, wide], {"axis": -1, "block_size": NVFP4_BLOCK})
    values.dtype = ir.DataType.FLOAT
    return _cast(build, values, dtype)


def _mxfp8_values(build: tape.Tape, codes: ir.Value, scales: ir.Value, dtype: ir.DataType) -> ir.Value:
    attributes = {"axis": -1, "block_size": MXFP8_BLOCK, "output_dtype": int(dtype)}
    return build.op("TRT_MXFP8DequantizeLinear", [codes, scales], attributes, domain=TRT_DOMAIN, version=1)


def _cast(build: tape.Tape, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    if value.dtype is dtype:
        return value
    cast = build.op("Cast", [value], {"to": int(dtype)})
    cast.dtype = dtype
    return cast
