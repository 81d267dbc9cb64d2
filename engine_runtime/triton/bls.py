"""Calls a piece that is a model of the same Triton: its dynamic batcher joins the calls of all requests that are under way."""

from __future__ import annotations

from collections.abc import Mapping

import triton_python_backend_utils as pb_utils

from diffusion_api.engine_manifest import Executor, Piece
from engine_runtime.errors import PieceError
from engine_runtime.pieces import Array
from engine_runtime.triton.tensors import from_triton, to_triton


class BlsRunner:
    """A `PieceRunner` over Triton's business logic scripting; safe for many threads."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._outputs = [spec.name for spec in piece.outputs]
        on_gpu = piece.executor is Executor.TENSORRT
        kind = pb_utils.TRITONSERVER_MEMORY_GPU if on_gpu else pb_utils.TRITONSERVER_MEMORY_CPU
        self._memory = pb_utils.PreferredMemory(kind, 0)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `PieceRunner`.

        Raises:
            PieceError: The piece failed; the message is Triton's.
        """
        request = pb_utils.InferenceRequest(
            model_name=self._piece.name,
            requested_output_names=self._outputs,
            inputs=[to_triton(spec, inputs[spec.name]) for spec in self._piece.inputs],
            preferred_memory=self._memory,
        )
        response = request.exec()
        if response.has_error():
            raise PieceError(f"{self._piece.name} failed: {response.error().message()}")
        return {spec.name: from_triton(spec, pb_utils.get_output_tensor_by_name(response, spec.name)) for spec in self._piece.outputs}
