"""The Triton model of a piece that Triton has no back end for: joins the requests of a dynamic batch, runs the executor, splits.

What lies on a GPU stays there: it comes and goes by DLPack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from diffusion_api.engine_manifest import TensorSpec
from engine_runtime.arrays import concatenate, is_numpy, to_kind_of
from engine_runtime.executors import load_runner
from engine_runtime.pieces import Array
from engine_runtime.triton.repository import load_piece
from engine_runtime.triton.tensors import from_triton, has_numpy_type


class TritonPythonModel:
    """See the module."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the piece from its version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._piece = load_piece(folder)
        self._run = load_runner(folder, self._piece)

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Run one dynamic batch; Triton has seen to it that all axes but the batch agree."""
        parts = [self._inputs(request) for request in requests]
        sizes = [next(iter(part.values())).shape[0] for part in parts]
        try:
            outputs = self._run({spec.name: _joined([part[spec.name] for part in parts]) for spec in self._piece.inputs})
        except Exception as error:  # Whatever an executor raises, the requests get it as their answer and the server lives on.
            failure = pb_utils.TritonError(f"{self._piece.name}: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum(sizes)
        return [self._response(outputs, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def _inputs(self, request: pb_utils.InferenceRequest) -> dict[str, Array]:
        return {spec.name: _array(spec, pb_utils.get_input_tensor_by_name(request, spec.name)) for spec in self._piece.inputs}

    def _response(self, outputs: Mapping[str, Array], rows: slice) -> pb_utils.InferenceResponse:
        return pb_utils.InferenceResponse([_tensor(spec, outputs[spec.name][rows]) for spec in self._piece.outputs])


def _array(spec: TensorSpec, tensor: pb_utils.Tensor) -> Array:
    """Take an input as it lies: on the host without a copy, for it outlives the call."""
    return tensor.as_numpy() if tensor.is_cpu() and has_numpy_type(spec) else from_triton(spec, tensor)


def _joined(arrays: Sequence[Array]) -> Array:
    """Join along the batch axis; where one is a torch tensor, the others follow it, for a neighbour's first step comes from the host."""
    leader = next((array for array in arrays if not is_numpy(array)), None)
    return concatenate(arrays if leader is None else [to_kind_of(array, leader) for array in arrays])


def _tensor(spec: TensorSpec, array: Array) -> pb_utils.Tensor:
    if is_numpy(array):
        return pb_utils.Tensor(spec.name, np.ascontiguousarray(array))
    return pb_utils.Tensor.from_dlpack(spec.name, array.contiguous())
