"""Runs a piece on the CPU by OpenVINO. Imports OpenVINO only when a piece is loaded, and never torch.

Equal inputs give byte-equal outputs on one machine: the thread count is fixed at load.
"""

from __future__ import annotations

import importlib
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_api.engine_manifest import Piece
from engine_runtime.arrays import to_numpy
from engine_runtime.errors import EngineFilesError
from engine_runtime.executors.inputs import piece_inputs
from engine_runtime.executors.threads import cpu_threads
from engine_runtime.pieces import Array

DEVICE = "CPU"


class OpenVinoRunner:
    """A piece compiled to OpenVINO IR; safe to call from several threads."""

    def __init__(self, folder: Path, piece: Piece, threads: int | None = None) -> None:
        """Load and compile `piece.file` of `folder`.

        Args:
            folder: Holds the piece's file and its weights.
            piece: What the builder wrote about it; `options` are OpenVINO properties.
            threads: CPU threads; None: what the container is given, see `cpu_threads`.

        Raises:
            EngineFilesError: the file is not in the folder.
            ModuleNotFoundError: OpenVINO is not installed; the message says how to.
        """
        file = folder / piece.file
        if not file.is_file():
            raise EngineFilesError(f"piece {piece.name}: {file} does not exist; build the engine again, or copy all of its folder")
        self.piece = piece
        properties = {**piece.options, "INFERENCE_NUM_THREADS": str(threads or cpu_threads())}
        self._compiled = _core().compile_model(str(file), DEVICE, properties)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it; the outputs are numpy arrays of the caller's own.

        Raises:
            PieceInputError: inputs that do not fit the piece.
        """
        arrays = {name: np.ascontiguousarray(to_numpy(array)) for name, array in piece_inputs(self.piece, inputs).items()}
        request = self._request()
        try:
            results = request.infer(arrays, share_inputs=True, share_outputs=False)
            return {spec.name: results[spec.name] for spec in self.piece.outputs}
        finally:
            self._idle.put(request)

    def _request(self) -> Any:
        """Take a request that no other thread uses; there are at most as many as there were callers at once."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


def _core() -> Any:
    try:
        openvino = importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: install it with `pip install diffusion-operator[cpu]`", name=error.name) from error
    return openvino.Core()
