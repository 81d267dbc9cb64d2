"""The three files that make a folder an engine's `pipeline`: written by the builder's package stage, read when serving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from diffusion_api.engine_manifest import EngineManifest
from engine_runtime.errors import EngineFilesError
from engine_runtime.tokenizer import PromptTokenizer

MANIFEST_FILE = "engine.json"
CONSTANTS_FILE = "constants.safetensors"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class EngineFiles:
    """What the loop needs beside runners."""

    manifest: EngineManifest
    constants: Mapping[str, npt.NDArray[np.generic]]
    tokenizer: PromptTokenizer


def load_engine_files(folder: Path) -> EngineFiles:
    """Read an engine's files and check that they fit together.

    Raises:
        EngineFilesError: One is missing or broken, or the manifest names a constant that is not there.
    """
    manifest = load_manifest(folder)
    try:
        constants = cast("dict[str, npt.NDArray[np.generic]]", load_file(folder / CONSTANTS_FILE))
    except (OSError, SafetensorError) as error:
        raise EngineFilesError(f"{folder / CONSTANTS_FILE} cannot be read: {error}; build the engine again") from error
    missing = {name for plan in manifest.shapes for name in plan.constants.values()} - set(constants)
    if missing:
        raise EngineFilesError(f"{folder / CONSTANTS_FILE} lacks {', '.join(sorted(missing))}; build the engine again")
    tokenizer_file = folder / TOKENIZER_FILE
    if not tokenizer_file.is_file():
        raise EngineFilesError(f"{tokenizer_file} is missing; build the engine again")
    return EngineFiles(manifest, constants, PromptTokenizer(tokenizer_file, manifest.text))


def load_manifest(folder: Path) -> EngineManifest:
    """Read `engine.json` alone.

    Raises:
        EngineFilesError: It is missing, or of another version of this contract.
    """
    path = folder / MANIFEST_FILE
    try:
        return EngineManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EngineFilesError(f"{path} cannot be read: {error.strerror}; is this a pipeline's version folder?") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise EngineFilesError(f"{path} is no manifest of this version: {problems}") from None


def write_engine_files(
    folder: Path, manifest: EngineManifest, constants: Mapping[str, npt.NDArray[np.generic]], tokenizer_json: str
) -> None:
    """Write the three files into a folder that is there.

    Args:
        folder: The pipeline's version folder.
        manifest: What the engine is made of.
        constants: Tensors that the shapes name, without batch axis.
        tokenizer_json: Text of the checkpoint's `tokenizer.json`.
    """
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest.to_wire(), indent=2) + "\n", encoding="utf-8")
    save_file({name: np.ascontiguousarray(array) for name, array in sorted(constants.items())}, folder / CONSTANTS_FILE)
    (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
