"""Executors: what runs a compiled piece. Each imports its library only when a piece is loaded."""

from __future__ import annotations

from pathlib import Path

from diffusion_api.engine_manifest import Executor, Piece
from engine_runtime.errors import EngineFilesError
from engine_runtime.executors.openvino import OpenVinoRunner
from engine_runtime.executors.tensorrt import TensorRtRunner
from engine_runtime.pieces import PieceRunner

__all__ = ["OpenVinoRunner", "TensorRtRunner", "load_runner"]


def load_runner(folder: Path, piece: Piece) -> PieceRunner:
    """Load a piece with the executor that it names.

    Args:
        folder: Holds `piece.file`.
        piece: From the engine's manifest.

    Raises:
        EngineFilesError: the file is missing or does not load here, or no executor of ours runs it.
        PieceError: the piece needs a GPU and there is none.
    """
    if piece.executor is Executor.OPENVINO:
        return OpenVinoRunner(folder, piece)
    if piece.executor is Executor.TENSORRT:
        return TensorRtRunner(folder, piece)
    raise EngineFilesError(f"piece {piece.name}: nothing here runs {piece.executor}; build the engine again")
