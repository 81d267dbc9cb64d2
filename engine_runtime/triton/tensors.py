"""Arrays to Triton's tensors and back. Runs inside Triton only. torch is imported only for tensors on a GPU or of BF16."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from diffusion_api.engine_manifest import Dtype, TensorSpec
from engine_runtime.arrays import is_numpy
from engine_runtime.pieces import Array

_NUMPY = {
    Dtype.FP32: np.float32,
    Dtype.FP16: np.float16,
    Dtype.INT64: np.int64,
    Dtype.INT32: np.int32,
    Dtype.UINT8: np.uint8,
}


def has_numpy_type(spec: TensorSpec) -> bool:
    """Tell whether numpy has an element type; it lacks BF16."""
    return spec.dtype in _NUMPY


def to_triton(spec: TensorSpec, array: Array) -> pb_utils.Tensor:
    """Make a tensor of the element type that the piece takes; a batch axis alone becomes [B, 1], see `piece_config`."""
    if not spec.dims:
        array = array.reshape(-1, 1)
    if is_numpy(array) and spec.dtype in _NUMPY:
        return pb_utils.Tensor(spec.name, np.ascontiguousarray(array, dtype=_NUMPY[spec.dtype]))
    import torch  # noqa: PLC0415  # A GPU's tensor, or BF16, which numpy does not have.

    names = {Dtype.FP32: "float32", Dtype.FP16: "float16", Dtype.BF16: "bfloat16", Dtype.INT64: "int64", Dtype.INT32: "int32"}
    tensor = torch.from_numpy(np.ascontiguousarray(array)) if is_numpy(array) else array
    tensor = tensor.to(getattr(torch, names.get(spec.dtype, "uint8"))).contiguous()
    return pb_utils.Tensor.from_dlpack(spec.name, tensor)


def from_triton(spec: TensorSpec, tensor: pb_utils.Tensor) -> Array:
    """Take an array out of a tensor: a numpy copy from the host, a torch tensor from a GPU, where BF16 comes as it is."""
    if tensor.is_cpu() and spec.dtype in _NUMPY:
        array: Array = np.array(tensor.as_numpy())  # A copy: Triton's shared memory goes with the response.
    else:
        from torch.utils.dlpack import from_dlpack  # noqa: PLC0415  # Only on a GPU.

        array = from_dlpack(tensor)
    return array.reshape(-1) if not spec.dims else array
