"""The Triton model of a piece that Triton has no back end for: joins the requests of a dynamic batch, runs the executor, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from engine_runtime.executors import load_runner
from engine_runtime.pieces import Array
from engine_runtime.triton.repository import load_piece


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
        joined = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self._piece.inputs}
        try:
            outputs = self._run(joined)
        except Exception as error:  # Whatever an executor raises, the requests get it as their answer and the server lives on.
            failure = pb_utils.TritonError(f"{self._piece.name}: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum(sizes)
        return [self._response(outputs, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def _inputs(self, request: pb_utils.InferenceRequest) -> dict[str, Array]:
        return {spec.name: pb_utils.get_input_tensor_by_name(request, spec.name).as_numpy() for spec in self._piece.inputs}

    def _response(self, outputs: Mapping[str, Array], rows: slice) -> pb_utils.InferenceResponse:
        tensors = [pb_utils.Tensor(spec.name, np.ascontiguousarray(outputs[spec.name][rows])) for spec in self._piece.outputs]
        return pb_utils.InferenceResponse(tensors)
