"""Weights on their way into a file: encoded when they are written, one after the other, and not before."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from engine_builder.quantization.numerics import Encoded, Encoding, decode, encode

_BYTE_TYPES = {
    torch.float8_e4m3fn: np.dtype(ml_dtypes.float8_e4m3fn),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
}


def torch_tensor(value: ir.Value) -> torch.Tensor | None:
    """Return a constant's tensor, sharing torch's memory; None where the value is not constant."""
    tensor = value.const_value
    if tensor is None:
        return None
    raw = getattr(tensor, "raw", None)
    if isinstance(raw, torch.Tensor):
        return raw.detach().cpu()
    array = tensor.numpy()
    if array.dtype == np.dtype(ml_dtypes.bfloat16):
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a contiguous array of the same type; numpy knows BF16 and FP8 through `ml_dtypes`."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype in _BYTE_TYPES:
        integer = torch.uint8 if tensor.element_size() == 1 else torch.int16
        return tensor.view(integer).numpy().view(_BYTE_TYPES[tensor.dtype])
    return np.asarray(tensor.numpy())


class LazyWeight:
    """A quantized weight whose parts are computed when the first of them is written and forgotten after the last."""

    def __init__(self, weight: torch.Tensor, encoding: Encoding, amax: torch.Tensor | None, *, transposed: bool) -> None:
        self._weight, self._encoding, self._amax, self._transposed = weight, encoding, amax, transposed
        self._parts: dict[str, ir.TensorProtocol] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the graph."""
        shape = tuple(self._weight.shape)
        return shape[::-1] if self._transposed else shape

    def codes(self, name: str) -> ir.LazyTensor:
        """Return the low-precision codes as a graph constant."""
        match self._encoding:
            case Encoding.INT8:
                dtype = ir.DataType.INT8
            case Encoding.NVFP4:
                dtype = ir.DataType.FLOAT4E2M1
            case _:
                dtype = ir.DataType.FLOAT8E4M3FN
        return ir.LazyTensor(lambda: self._part("codes"), dtype, ir.Shape(self.shape), name=name)

    def block_scales(self, name: str, block: int) -> ir.LazyTensor:
        """Return the scales of the blocks: E4M3 for NVFP4, biased exponents in UINT8 for MXFP8."""
        dtype = ir.DataType.FLOAT8E4M3FN if self._encoding is Encoding.NVFP4 else ir.DataType.UINT8
        shape = ir.Shape((*self._weight.shape[:-1], self._weight.shape[-1] // block))
        return ir.LazyTensor(lambda: self._part("scale"), dtype, shape, name=name)

    def decoded(self, name: str, dtype: ir.DataType) -> ir.LazyTensor:
        """Return the values that the codes stand for."""

        def values() -> ir.TensorProtocol:
            decoded = decode(encode(self._weight, self._encoding, self._amax), self._encoding, self._weight.dtype)
            return ir.tensor(to_numpy(decoded.T if self._transposed else decoded), dtype=dtype)

        return ir.LazyTensor(values, dtype, ir.Shape(self.shape), name=name)

    def _part(self, name: str) -> ir.TensorProtocol:
        if name not in self._parts:
            self._parts = self._encode()
        return self._parts.pop(name)

    def _encode(self) -> dict[str, ir.TensorProtocol]:
        encoded: Encoded = encode(self._weight, self._encoding, self._amax)
        if self._encoding in (Encoding.INT8, Encoding.FP8):
            return {"codes": ir.tensor(to_numpy(encoded.codes.T if self._transposed else encoded.codes))}
        scale = ir.tensor(to_numpy(encoded.scale))
        if self._encoding is Encoding.MXFP8:
            return {"codes": ir.tensor(to_numpy(encoded.codes)), "scale": scale}
        pairs = encoded.codes.reshape(-1, 2)
        packed = to_numpy(pairs[:, 0] | (pairs[:, 1] << 4))  # ONNX: the first of two in the low four bits.
        return {"codes": ir.PackedTensor(packed, ir.DataType.FLOAT4E2M1, shape=self.shape), "scale": scale}
