"""Checks a piece's inputs against its contract, so that a wrong shape is named here and not deep inside an executor."""

from __future__ import annotations

from collections.abc import Mapping

from diffusion_api.engine_manifest import Dtype, Piece, TensorSpec
from engine_runtime.errors import PieceError
from engine_runtime.pieces import Array

NUMPY_NAMES = {
    Dtype.FP32: "float32",
    Dtype.FP16: "float16",
    Dtype.BF16: "bfloat16",
    Dtype.INT64: "int64",
    Dtype.INT32: "int32",
    Dtype.UINT8: "uint8",
}
"""Names that numpy and torch share; plain numpy has no `bfloat16`."""


class PieceInputError(PieceError):
    """Inputs that do not fit a piece; the caller's bug."""


def piece_inputs(piece: Piece, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Pick a piece's inputs, and check element types, ranks, fixed axes, and that equally named axes and all batches agree.

    Raises:
        PieceInputError: names the piece, the input, what it is and what it should be.
    """
    missing = [spec.name for spec in piece.inputs if spec.name not in inputs]
    if missing:
        raise PieceInputError(f"{piece.name} also needs {', '.join(missing)}; it got {', '.join(sorted(inputs)) or 'nothing'}")
    axes: dict[str, tuple[int, str]] = {}
    for spec in piece.inputs:
        _check_one(piece.name, spec, inputs[spec.name], axes)
    return {spec.name: inputs[spec.name] for spec in piece.inputs}


def _check_one(piece: str, spec: TensorSpec, array: Array, axes: dict[str, tuple[int, str]]) -> None:
    dims = ("batch", *spec.dims)
    shape, dtype = tuple(array.shape), str(array.dtype).removeprefix("torch.")
    problem = f"{piece}: input {spec.name} is {dtype} {list(shape)}, should be {spec.dtype} [{', '.join(map(str, dims))}]"
    if dtype != NUMPY_NAMES[spec.dtype] or len(shape) != len(dims):
        raise PieceInputError(problem)
    for dim, size in zip(dims, shape, strict=True):
        if isinstance(dim, int):
            if size != dim:
                raise PieceInputError(problem)
            continue
        known, owner = axes.setdefault(dim, (size, spec.name))
        if known != size:
            raise PieceInputError(f"{problem}: {dim} is {size} here but {known} in {owner}")
