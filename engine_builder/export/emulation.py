"""FP8, MXFP8 and NVFP4 quantization of an activation in FP32 arithmetic, for runtimes without such kernels: right, but no faster.

No FP8 type appears: OpenVINO's CPU plugin (2026.4) computes in FP32 what a graph holds in FP8, so that a QuantizeLinear to FP8 would not
round at all there. The arithmetic needs FP32; with a BF16 inference hint its rounding is lost.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import tape

from engine_builder.quantization.numerics import AMAX_FLOOR, E2M1_MAX, E4M3_MAX, MXFP8_BLOCK, NVFP4_BLOCK, Encoding

_FLOAT = ir.DataType.FLOAT


def block_quantize(build: tape.Tape, values: ir.Value, encoding: Encoding, tensor_scale: torch.Tensor | None) -> ir.Value:
    """Append operators that quantize along the last axis and give the values back in their own type.

    Args:
        build: Collects the operators.
        values: Activation of known rank and width.
        encoding: MXFP8 or NVFP4.
        tensor_scale: NVFP4's scale per tensor.
    """
    assert values.shape is not None
    assert values.dtype is not None
    rank, width = len(values.shape), int(values.shape[-1])
    block = NVFP4_BLOCK if encoding is Encoding.NVFP4 else MXFP8_BLOCK
    wide = values if values.dtype is _FLOAT else build.op("Cast", [values], {"to": int(_FLOAT)})
    blocks = build.op("Reshape", [wide, _integers(build, [0] * (rank - 1) + [-1, block])])
    amax = build.op("ReduceMax", [build.op("Abs", [blocks]), _integers(build, [-1])], {"keepdims": 1})
    if encoding is Encoding.NVFP4:
        assert tensor_scale is not None
        scale = _nvfp4_scale(build, amax, float(tensor_scale))
        codes = _e2m1(build, build.op("Div", [blocks, scale]))
    else:
        scale = _mxfp8_scale(build, amax)
        codes = _e4m3(build, build.op("Div", [blocks, scale]))
    result = build.op("Reshape", [build.op("Mul", [codes, scale]), _integers(build, [0] * (rank - 1) + [width])])
    return result if values.dtype is _FLOAT else build.op("Cast", [result], {"to": int(values.dtype)})


def linear_quantize(build: tape.Tape, values: ir.Value, scale: torch.Tensor | None) -> ir.Value:
    """Append operators that quantize to E4M3 and give the values back in their own type.

    Args:
        build: Collects the operators.
        values: Activation.
        scale: Scale per tensor; None computes one for each token.
    """
    assert values.dtype is not None
    wide = values if values.dtype is _FLOAT else build.op("Cast", [values], {"to": int(_FLOAT)})
    if scale is None:
        amax = build.op("ReduceMax", [build.op("Abs", [wide]), _integers(build, [-1])], {"keepdims": 1})
        factor = build.op("Div", [build.op("Max", [amax, _number(build, AMAX_FLOOR)]), _number(build, E4M3_MAX)])
    else:
        factor = _number(build, float(scale))
    result = build.op("Mul", [_e4m3(build, build.op("Div", [wide, factor])), factor])
    return result if values.dtype is _FLOAT else build.op("Cast", [result], {"to": int(values.dtype)})


def _nvfp4_scale(build: tape.Tape, amax: ir.Value, tensor_scale: float) -> ir.Value:
    wanted = build.op("Div", [build.op("Div", [amax, _number(build, E2M1_MAX)]), _number(build, tensor_scale)])
    clipped = build.op("Clip", [wanted, _number(build, 2.0**-9), _number(build, E4M3_MAX)])
    return build.op("Mul", [_e4m3(build, clipped), _number(build, tensor_scale)])


def _mxfp8_scale(build: tape.Tape, amax: ir.Value) -> ir.Value:
    """Return 2^ceil(log2(amax / 448)); the logarithm may be one off near a power of two, which two comparisons put right."""
    ratio = build.op("Div", [build.op("Max", [amax, _number(build, 2.0**-100)]), _number(build, E4M3_MAX)])
    exponent = build.op("Ceil", [build.op("Mul", [build.op("Log", [ratio]), _number(build, 1 / math.log(2))])])
    power = build.op("Pow", [_number(build, 2.0), exponent])
    power = build.op("Where", [build.op("Less", [power, ratio]), build.op("Mul", [power, _number(build, 2.0)]), power])
    half = build.op("Mul", [power, _number(build, 0.5)])
    return build.op("Where", [build.op("GreaterOrEqual", [half, ratio]), half, power])


def _e4m3(build: tape.Tape, values: ir.Value) -> ir.Value:
    """Round to E4M3: four significant bits, but no finer than 2^-9, and at most 448.

    Source: Dekker 1971, "A floating-point technique for extending the available precision", section 5: with c = x · (2^s + 1) in FP32,
    c - (c - x) is x rounded to 24 - s bits.
    """
    clipped = build.op("Clip", [values, _number(build, -E4M3_MAX), _number(build, E4M3_MAX)])
    spread = build.op("Mul", [clipped, _number(build, 2.0**20 + 1)])
    normal = build.op("Sub", [spread, build.op("Sub", [spread, clipped])])
    step = _number(build, 2.0**9)
    subnormal = build.op("Div", [build.op("Round", [build.op("Mul", [clipped, step])]), step])
    small = build.op("Less", [build.op("Abs", [clipped]), _number(build, 2.0**-6)])
    return build.op("Where", [small, subnormal, normal])


def _e2m1(build: tape.Tape, values: ir.Value) -> ir.Value:
    """Round to E2M1: steps of 0.5 below 2, of 1 below 4, of 2 up to 6; ties to the even multiple, as ONNX rounds."""
    two, half, magnitude = _number(build, 2.0), _number(build, 0.5), build.op("Abs", [values])
    fine = build.op("Mul", [build.op("Round", [build.op("Mul", [values, two])]), half])
    middle = build.op("Round", [values])
    coarse = build.op("Mul", [build.op("Round", [build.op("Mul", [values, half])]), two])
    coarse = build.op("Clip", [coarse, _number(build, -E2M1_MAX), _number(build, E2M1_MAX)])
    upper = build.op("Where", [build.op("Less", [magnitude, _number(build, 4.0)]), middle, coarse])
    return build.op("Where", [build.op("Less", [magnitude, two]), fine, upper])


def _number(build: tape.Tape, value: float) -> ir.Value:
    return build.op("Constant", [], {"value": ir.tensor(np.float32(value))})


def _integers(build: tape.Tape, values: list[int]) -> ir.Value:
    return build.op("Constant", [], {"value": ir.tensor(np.array(values, np.int64))})
