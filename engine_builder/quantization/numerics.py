"""The arithmetic of every number format in plain torch: what the exported graph does, bit for bit, on any device.

One implementation serves calibration, the search in simulation and the weights in the file, so that these cannot drift apart. Nothing
here knows a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch

E4M3_MAX = 448.0
E2M1_MAX = 6.0
INT8_MAX = 127.0
NVFP4_BLOCK = 16
MXFP8_BLOCK = 32
NVFP4_UNIT_AMAX = E2M1_MAX * E4M3_MAX
"""The largest value at which NVFP4's tensor scale is 1, so that the block scales alone carry the range."""

_E4M3_TINY = 2.0**-9  # The smallest E4M3 number; a smaller block scale would be zero.
AMAX_FLOOR = 2.0**-24
"""A tensor of zeros is taken to have this largest value, instead of a division by zero."""

_CHUNK = 1 << 22  # Values that are encoded at a time: temporaries stay in the processor's cache.
# Halfway between neighbours; where the upper one's code is even, a tie goes up, so that the boundary is a little lower.
_E2M1_BOUNDARIES = tuple(
    float(torch.nextafter(torch.tensor(middle), torch.tensor(0.0))) if index % 2 else middle
    for index, middle in enumerate((0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0))
)


class Encoding(StrEnum):
    """How a tensor is held in few bits."""

    INT8 = "int8"
    """Integers in [-128, 127] with a scale per tensor, or per output channel of a weight."""
    FP8 = "fp8"
    """E4M3 with a scale per tensor, or per output channel of a weight."""
    FP8_TOKEN = "fp8_token"  # noqa: S105 - a token of the model
    """E4M3 with a scale per token, computed from the activation."""
    MXFP8 = "mxfp8"
    """E4M3 with a power-of-two scale per block of 32 (OCP Microscaling Formats 1.0)."""
    NVFP4 = "nvfp4"
    """E2M1 with an E4M3 scale per block of 16 and an FP32 scale per tensor."""


@dataclass(frozen=True)
class Encoded:
    """A tensor in few bits; `decode` gives its value back."""

    codes: torch.Tensor
    """INT8, FLOAT8_E4M3FN, or for NVFP4 UINT8 with one E2M1 code in each byte; shape of the tensor."""
    scale: torch.Tensor
    """Per tensor: []; per channel or token: broadcasts; per block: [..., K / block], MXFP8 as UINT8 exponent + 127."""
    tensor_scale: torch.Tensor | None = None
    """NVFP4 only: FP32 [], multiplies every block scale."""


def block_size(encoding: Encoding) -> int | None:
    """Return how many neighbours along the last axis share a scale; None where that is no fixed number."""
    return {Encoding.MXFP8: MXFP8_BLOCK, Encoding.NVFP4: NVFP4_BLOCK}.get(encoding)


def linear_scale(amax: torch.Tensor, encoding: Encoding, dtype: torch.dtype) -> torch.Tensor:
    """Return the scale of INT8 or FP8, rounded to `dtype` as the graph stores it, in FP32.

    Args:
        amax: Largest absolute value per tensor or channel.
        encoding: INT8, FP8 or FP8_TOKEN.
        dtype: Type of the tensor that is quantized; ONNX's QuantizeLinear has its scale in the same type.
    """
    largest = INT8_MAX if encoding is Encoding.INT8 else E4M3_MAX
    scale = (amax.float().clamp(min=AMAX_FLOOR) / largest).to(dtype).float()
    return torch.where(scale == 0, torch.full_like(scale, torch.finfo(dtype).tiny), scale)  # FP16 may flush it.


def e2m1_codes(values: torch.Tensor) -> torch.Tensor:
    """Round to the nearest of ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}, ties to the even code; returns UINT8 codes, sign in bit 3.

    Source: OCP Microscaling Formats 1.0, section 5.3.3.
    """
    boundaries = torch.tensor(_E2M1_BOUNDARIES, device=values.device)
    codes = torch.bucketize(values.abs(), boundaries, out_int32=True)
    return codes.to(torch.uint8) | (torch.signbit(values).to(torch.uint8) << 3)


def e2m1_values(codes: torch.Tensor) -> torch.Tensor:
    """Return the FP32 value of E2M1 codes, one in each byte."""
    table = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=codes.device)
    return torch.cat([table, -table])[codes.long()]


def encode(values: torch.Tensor, encoding: Encoding, amax: torch.Tensor | None) -> Encoded:
    """Quantize a tensor.

    Args:
        values: FP32, FP16 or BF16; the last axis is a multiple of the block size where there is one.
        encoding: Format.
        amax: Largest absolute value: per tensor or channel (INT8, FP8), per tensor (NVFP4), None for the others.
    """
    if block_size(encoding) is not None and values.ndim == 2 and values.numel() > _CHUNK:
        rows = max(1, _CHUNK // values.shape[1])
        parts = [encode(part, encoding, amax) for part in torch.split(values, rows)]
        codes, scales = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scale"))
        return Encoded(codes, scales, parts[0].tensor_scale)
    x = values.float()
    match encoding:
        case Encoding.INT8 | Encoding.FP8 | Encoding.FP8_TOKEN:
            if encoding is Encoding.FP8_TOKEN:
                amax = x.abs().amax(-1, keepdim=True)
            assert amax is not None
            # A scale per token is computed in the graph, in FP32.
            scale = linear_scale(amax, encoding, torch.float32 if encoding is Encoding.FP8_TOKEN else values.dtype)
            if encoding is Encoding.INT8:
                return Encoded(torch.round(x / scale).clamp(-128, 127).to(torch.int8), scale)
            return Encoded((x / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale)
        case Encoding.MXFP8:
            blocks = _blocks(x, MXFP8_BLOCK)
            # The smallest power of two that no value of the block saturates at, as NVIDIA's kernels round (arXiv:2506.08027,
            # section 3.1). frexp gives r = m · 2^e with m in [0.5, 1): ceil(log2 r) is e, or e - 1 at a power of two; no rounding.
            mantissa, exponent = torch.frexp(blocks.abs().amax(-1).clamp(min=2.0**-100) / E4M3_MAX)
            exponent = exponent - (mantissa == 0.5).to(exponent.dtype)
            codes = torch.ldexp(blocks, -exponent[..., None]).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
            return Encoded(codes.flatten(-2), (exponent + 127).to(torch.uint8))
        case Encoding.NVFP4:
            assert amax is not None
            blocks = _blocks(x, NVFP4_BLOCK)
            tensor_scale = nvfp4_tensor_scale(amax)
            wanted = blocks.abs().amax(-1) / E2M1_MAX / tensor_scale
            scale = wanted.clamp(_E4M3_TINY, E4M3_MAX).to(torch.float8_e4m3fn)
            codes = e2m1_codes(blocks / (scale.float() * tensor_scale)[..., None])
            return Encoded(codes.flatten(-2), scale, tensor_scale)


def decode(encoded: Encoded, encoding: Encoding, dtype: torch.dtype) -> torch.Tensor:
    """Return the values that `encoded` stands for, rounded to `dtype`."""
    match encoding:
        case Encoding.INT8 | Encoding.FP8 | Encoding.FP8_TOKEN:
            return (encoded.codes.float() * encoded.scale).to(dtype)
        case Encoding.MXFP8:
            blocks = _blocks(encoded.codes.float(), MXFP8_BLOCK)
            return torch.ldexp(blocks, encoded.scale.int()[..., None] - 127).flatten(-2).to(dtype)
        case Encoding.NVFP4:
            assert encoded.tensor_scale is not None
            blocks = _blocks(e2m1_values(encoded.codes), NVFP4_BLOCK)
            return (blocks * (encoded.scale.float() * encoded.tensor_scale)[..., None]).flatten(-2).to(dtype)


def nvfp4_tensor_scale(amax: torch.Tensor) -> torch.Tensor:
    """Return NVFP4's scale per tensor, FP32 []: the largest block scale becomes E4M3's largest number."""
    largest = amax.float().max()
    return torch.where(largest <= AMAX_FLOOR, torch.ones_like(largest), largest / NVFP4_UNIT_AMAX)


def fake_quantize(values: torch.Tensor, encoding: Encoding, amax: torch.Tensor | None) -> torch.Tensor:
    """Return `values` as they are after quantization, in their own type."""
    return decode(encode(values, encoding, amax), encoding, values.dtype)


def _blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    return values.reshape(*values.shape[:-1], -1, size)
