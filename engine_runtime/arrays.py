"""The few operations that numpy and torch spell differently. torch is touched only where an array is a torch tensor already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from engine_runtime.pieces import Array


def is_numpy(array: Array) -> bool:
    """True for a numpy array; False for a torch tensor."""
    return isinstance(array, np.ndarray)


def concatenate(arrays: Sequence[Array]) -> Array:
    """Join along the batch axis; all are of one kind and on one device."""
    if len(arrays) == 1:
        return arrays[0]
    if is_numpy(arrays[0]):
        return np.concatenate(arrays)
    import torch  # noqa: PLC0415  # Only where a runner returns torch tensors.

    return torch.cat(list(arrays))


def concatenate_named(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join mappings with equal names along the batch axis."""
    return {name: concatenate([part[name] for part in parts]) for name in parts[0]}


def rows_of(arrays: Mapping[str, Array], rows: Sequence[int]) -> dict[str, Array]:
    """Take rows of the batch axis from each array, as a copy."""
    index = list(rows)
    return {name: array[index] for name, array in arrays.items()}


def repeat_rows(array: Array, rows: int) -> Array:
    """Give an array without batch axis one of `rows` equal rows, contiguous."""
    if is_numpy(array):
        return np.ascontiguousarray(np.broadcast_to(array, (rows, *array.shape)))
    return array.expand(rows, *array.shape).contiguous()


def as_float32(array: Array) -> Array:
    """Turn into FP32, where it is not yet."""
    return array.astype(np.float32, copy=False) if is_numpy(array) else array.float()


def to_kind_of(array: Array, other: Array) -> Array:
    """Turn into the kind (numpy or torch) and onto the device of `other`, keeping the element type."""
    if is_numpy(other):
        return to_numpy(array)
    if is_numpy(array):
        import torch  # noqa: PLC0415  # `other` is a torch tensor: torch is loaded.

        array = torch.from_numpy(np.ascontiguousarray(array))
    return array.to(other.device)


def to_numpy(array: Array) -> npt.NDArray[Any]:
    """Copy to the host, where it is not there yet."""
    return cast("npt.NDArray[Any]", array if is_numpy(array) else array.detach().cpu().numpy())


def is_finite(array: Array) -> npt.NDArray[np.bool_]:
    """Tell for each row [B] whether all its numbers are finite."""
    # A NaN or infinity anywhere makes the mean of x − x NaN; this costs no copy of a GPU tensor to the host but one number a row.
    means: npt.NDArray[np.float64] = to_numpy((array - array).reshape(array.shape[0], -1).mean(1)).astype(np.float64)
    finite: npt.NDArray[np.bool_] = np.isfinite(means)
    return finite
