"""Which files of a checkpoint are wanted, and which are refused because loading them would run code."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from engine_builder.errors import InvalidModelError, UnsafeModelError
from engine_builder.fetch.source import safe_path

MODEL_INDEX = "model_index.json"
SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken"}
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib"}
DOCUMENTS = ("license", "licence", "notice", "readme")
SINGLE_FILES = {".safetensors"}
"""Beside `model_index.json` these are the same weights once more, in their author's own layout."""


def parse_model_index(text: bytes) -> dict[str, Any]:
    """Parse `model_index.json`.

    Raises:
        InvalidModelError: It is not a JSON object.
        UnsafeModelError: Its pipeline is a class of the checkpoint's own code.
    """
    try:
        index = json.loads(text)
    except ValueError as error:
        raise InvalidModelError(f"{MODEL_INDEX} is not JSON: {error}") from None
    if not isinstance(index, dict):
        raise InvalidModelError(f"{MODEL_INDEX} is not a JSON object; it must name the pipeline's components")
    if isinstance(index.get("_class_name"), list):
        raise UnsafeModelError(
            f"{MODEL_INDEX} wants its own pipeline code, {index['_class_name']}, which is never run; use a diffusers class"
        )
    return index


def components_of(model_index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the folders that `model_index.json` declares, without those it sets to null."""
    entries = ((name, entry) for name, entry in model_index.items() if not name.startswith("_"))
    return tuple(name for name, entry in entries if isinstance(entry, list) and any(part is not None for part in entry))


def checkpoint_files(paths: Collection[str], model_index: Mapping[str, Any]) -> tuple[str, ...]:
    """Choose from a listing what the builder reads: safetensors, configurations, tokenizers, licences; nothing twice.

    Raises:
        UnsafeModelError: A component has code, or its weights as pickles only.
        InvalidModelError: A path leaves the folder.
    """
    components = set(components_of(model_index))
    paths = [safe_path(path) for path in paths]
    refuse_code_and_pickles(paths, components)
    chosen = [path for path in paths if _is_wanted(PurePosixPath(path), components)]
    return tuple(sorted(path for path in chosen if not _is_variant(path, chosen)))


def refuse_code_and_pickles(paths: Iterable[str], components: Collection[str]) -> None:
    """Refuse Python files in component folders, and component folders whose weights are pickles only.

    Raises:
        UnsafeModelError: Names the file; nothing of it was run.
    """
    inside = [pure for path in paths if (pure := PurePosixPath(path)).parts[0] in components and len(pure.parts) > 1]
    if code := sorted(str(pure) for pure in inside if pure.suffix == ".py"):
        raise UnsafeModelError(f"the checkpoint holds code, {code[0]}, which is never run; use a model of diffusers or transformers")
    safe = {pure.parts[0] for pure in inside if pure.suffix == ".safetensors"}
    if pickles := sorted(str(pure) for pure in inside if pure.suffix in PICKLES and pure.parts[0] not in safe):
        raise UnsafeModelError(
            f"{pickles[0]} is a pickle, which can run code when it is loaded; save this component with safe_serialization=True"
        )


def _is_wanted(path: PurePosixPath, components: Collection[str]) -> bool:
    if any(part.startswith(".") for part in path.parts):
        return False
    if len(path.parts) == 1:
        return path.name.lower().startswith(DOCUMENTS) or (path.suffix in SUFFIXES - SINGLE_FILES)
    return path.parts[0] in components and (path.suffix in SUFFIXES or path.name.lower().startswith(DOCUMENTS))


def _is_variant(path: str, chosen: Collection[str]) -> bool:
    """Tell whether a file is `model.fp16.safetensors` beside `model.safetensors`: the same weights, rounded."""
    pure = PurePosixPath(path)
    stem, _, variant = pure.name.removesuffix(".safetensors").rpartition(".")
    return pure.suffix == ".safetensors" and bool(stem) and variant.isalnum() and str(pure.with_name(f"{stem}.safetensors")) in chosen
