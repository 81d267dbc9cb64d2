"""Checks a checkpoint on disk by its headers: complete, not truncated, no code. Reads kilobytes, never weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine_builder.errors import InvalidModelError, UnsafeModelError
from engine_builder.fetch.selection import MODEL_INDEX, components_of, parse_model_index, refuse_code_and_pickles
from engine_builder.store.digests import files_below

MAX_HEADER_BYTES = 100_000_000
"""Source: safetensors, `safetensors/src/tensor.rs`, MAX_HEADER_SIZE."""
BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8, "BOOL": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
"""Source: the same file, `Dtype::bitsize`."""


class TensorInfo(NamedTuple):
    """What a safetensors header says of a tensor."""

    dtype: str
    """In safetensors' words, for example `BF16`."""
    shape: tuple[int, ...]
    """Axes."""


def check_tensor_files(folder: Path) -> dict[str, dict[str, TensorInfo]]:
    """Check a diffusers folder without loading a weight or running a line of it.

    Returns:
        For each safetensors file, by relative path, its tensors.

    Raises:
        InvalidModelError: A file or component is missing, truncated or corrupted; names it and the bytes that are missing.
        UnsafeModelError: A component needs code of the checkpoint, or has its weights as pickles only.
    """
    if not (folder / MODEL_INDEX).is_file():
        raise InvalidModelError(f"{folder} has no {MODEL_INDEX}: it is not a diffusers folder")
    components = components_of(parse_model_index((folder / MODEL_INDEX).read_bytes()))
    paths = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    refuse_code_and_pickles(paths, components)
    for component in components:
        _check_component(folder / component)
    inside = [path for path in paths if path.partition("/")[0] in components]
    headers = {path: read_header(folder / path, path) for path in inside if path.endswith(".safetensors")}
    for path in inside:
        if path.endswith(".safetensors.index.json"):
            _check_shards(path, _json_object(folder / path, path), headers)
    return headers


def read_header(path: Path, name: str) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file, whose size must be what its header adds up to.

    Raises:
        InvalidModelError: It is not; `name` stands in the message.

    Source: https://github.com/huggingface/safetensors, README, "Format".
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise InvalidModelError(f"{name} is not a safetensors file ({size} bytes)")
        text = stream.read(length)
    if len(text) < length:
        raise InvalidModelError(f"{name} is truncated: {length - len(text)} bytes of its header are missing; fetch it again")
    try:
        entries = {tensor: entry for tensor, entry in json.loads(text).items() if tensor != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        problems = [tensor for tensor, entry in entries.items() if not _fits(entry)]
        tensors = {tensor: TensorInfo(str(entry["dtype"]), tuple(entry["shape"])) for tensor, entry in entries.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidModelError(f"{name} has a corrupted header ({type(error).__name__}: {error}); fetch it again") from error
    if problems:
        raise InvalidModelError(f"{name} is corrupted: the bytes of {problems[0]} do not fit its shape; fetch it again")
    _check_size(name, size, 8 + length + end, _covered(entries) == end)
    return tensors


def _check_size(name: str, size: int, expected: int, whole: bool) -> None:
    if size < expected:
        raise InvalidModelError(f"{name} is truncated: {expected - size} of {expected} bytes are missing; fetch it again")
    if size > expected:
        raise InvalidModelError(f"{name} is corrupted: {size - expected} bytes follow its last tensor; fetch it again")
    if not whole:
        raise InvalidModelError(f"{name} is corrupted: its tensors overlap or leave gaps; fetch it again")


def _fits(entry: Mapping[str, Any]) -> bool:
    begin, end = entry["data_offsets"]
    bits = math.prod(entry["shape"]) * BITS[entry["dtype"]]
    return bool(0 <= begin <= end and (end - begin) * 8 == bits)


def _covered(entries: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many bytes lie in tensors that follow each other without a gap from the start."""
    covered = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != covered:
            return -1
        covered = end
    return covered


def _check_component(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InvalidModelError(f"component {folder.name} is missing: {MODEL_INDEX} names it, but there is no such folder; fetch it again")
    for path in files_below(folder):
        if path.suffix == ".json" and path.name.endswith("config.json"):
            _refuse_custom_code(f"{folder.name}/{path.name}", _json_object(path, f"{folder.name}/{path.name}"))
    is_network = (folder / "config.json").is_file() and not any(
        (folder / name).is_file() for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
    )
    if is_network and not any(path.suffix == ".safetensors" for path in files_below(folder)):
        raise InvalidModelError(f"component {folder.name} has no safetensors file; fetch it again")


def _refuse_custom_code(name: str, config: Mapping[str, Any]) -> None:
    for mark in ("auto_map", "trust_remote_code"):
        if config.get(mark):
            raise UnsafeModelError(
                f"{name} wants code of the checkpoint ({mark}), which is never run; use a model of diffusers or transformers"
            )


def _check_shards(name: str, index: Mapping[str, Any], headers: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise InvalidModelError(f"{name} has no weight_map; fetch it again")
    folder = name.rpartition("/")[0]
    if missing := sorted({shard for shard in weight_map.values() if f"{folder}/{shard}" not in headers}):
        raise InvalidModelError(f"{folder}/{missing[0]} is missing: {len(missing)} shards of {name} are not there; fetch it again")
    lost = sorted(tensor for tensor, shard in weight_map.items() if tensor not in headers[f"{folder}/{shard}"])
    if lost:
        raise InvalidModelError(f"{len(lost)} tensors of {name} are in none of its shards: {', '.join(lost[:3])}; fetch it again")


def _json_object(path: Path, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidModelError(f"{name} is not JSON: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise InvalidModelError(f"{name} is not a JSON object; fetch it again")
    return value
