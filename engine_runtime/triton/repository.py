"""Writes an engine as a Triton model repository: `pipeline` and one model a piece.

pipeline/config.pbtxt, 1/{model.py, engine.json, constants.safetensors, tokenizer.json}
<piece>/config.pbtxt, 1/<its file>; pieces that Triton itself cannot run (OpenVINO, TensorRT-RTX) also have 1/{model.py, piece.json}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion_api.engine_manifest import EngineManifest, Piece
from diffusion_api.serving import Serving
from engine_runtime.errors import EngineFilesError
from engine_runtime.repository import load_manifest, write_engine_files
from engine_runtime.triton.config import PIPELINE, has_triton_backend, piece_config, pipeline_config

REPOSITORY_FOLDER = "model_repository"
"""Folder of an engine that holds its repository."""
CONFIG_FILE = "config.pbtxt"
VERSION = "1"
PIECE_FILE = "piece.json"

_MODEL = '''"""What Triton's Python backend loads; the model itself is in the package."""

from engine_runtime.triton.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_model_repository(
    root: Path,
    *,
    manifest: EngineManifest,
    compiled: Mapping[str, Path],
    constants: Mapping[str, npt.NDArray[np.generic]],
    tokenizer_json: str,
    serving: Serving | None = None,
) -> None:
    """Write a repository that `tritonserver --model-repository` takes.

    Args:
        root: A folder; made if it is not there.
        manifest: The whole manifest, with pieces.
        compiled: By piece name the folder with its compiled files, all of which are copied.
        constants: Tensors that the shapes name, without batch axis.
        tokenizer_json: Text of the checkpoint's `tokenizer.json`.
        serving: Batch, delay and queue; None is the defaults. `link_model_repository` changes them later.

    Raises:
        EngineFilesError: A piece was not compiled.
    """
    pipeline = root / PIPELINE / VERSION
    pipeline.mkdir(parents=True, exist_ok=True)
    write_engine_files(pipeline, manifest, constants, tokenizer_json)
    (pipeline / "model.py").write_text(_MODEL.format(module="pipeline"), encoding="utf-8")
    for piece in manifest.pieces.values():
        _write_piece(root / piece.name / VERSION, piece, compiled)
    _write_configs(root, manifest, serving or Serving())


def link_model_repository(source: Path, target: Path, serving: Serving) -> None:
    """Make a repository with other serving settings over the files of one that stays as it is, such as a read-only volume.

    Args:
        source: A repository that `write_model_repository` wrote.
        target: A folder; its models are made anew.
        serving: Batch, delay and queue.

    Raises:
        EngineFilesError: `source` is no such repository.
    """
    manifest = load_manifest(source / PIPELINE / VERSION)
    for name in (PIPELINE, *manifest.pieces):
        _link_files((source / name / VERSION).resolve(), target / name / VERSION)
    for piece in manifest.pieces.values():
        if not (target / piece.name / VERSION / PIECE_FILE).exists():  # A plan of TensorRT-RTX that was packaged for Triton's back end.
            _write_python_model(target / piece.name / VERSION, piece)
    _write_configs(target, manifest, serving)


def load_piece(folder: Path) -> Piece:
    """Read `piece.json` of a piece's version folder."""
    return Piece.model_validate_json((folder / PIECE_FILE).read_bytes())


def _link_files(source: Path, target: Path) -> None:
    """Link what is in a folder, and not the folder: Python puts its byte code beside a model, and runs what lies there."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "__pycache__":
            (target / path.name).symlink_to(path)


def _write_configs(root: Path, manifest: EngineManifest, serving: Serving) -> None:
    (root / PIPELINE / CONFIG_FILE).write_text(pipeline_config(manifest, serving), encoding="utf-8")
    for piece in manifest.pieces.values():
        (root / piece.name / CONFIG_FILE).write_text(piece_config(piece, manifest, serving), encoding="utf-8")


def _write_piece(folder: Path, piece: Piece, compiled: Mapping[str, Path]) -> None:
    source = compiled.get(piece.name)
    if source is None or not (source / piece.file).is_file():
        raise EngineFilesError(f"piece {piece.name} has no compiled file {piece.file}; compile it first")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    _write_python_model(folder, piece)


def _write_python_model(folder: Path, piece: Piece) -> None:
    """Write what Triton's Python back end loads, for a piece that Triton has no back end for."""
    if not has_triton_backend(piece):
        (folder / "model.py").write_text(_MODEL.format(module="piece_model"), encoding="utf-8")
        (folder / PIECE_FILE).write_text(json.dumps(piece.to_wire(), indent=2) + "\n", encoding="utf-8")
