"""Reads a diffusers folder without loading weights: JSON files and the headers of safetensors files.

Imports no torch: a plan is made and a checkpoint is refused in milliseconds, on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_builder.errors import InvalidModelError, UnsafeModelError

MAX_HEADER_BYTES = 100_000_000
"""Source: safetensors' format, which refuses larger headers."""

FLOAT_DTYPES = ("F32", "F16", "BF16")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        InvalidModelError: The file is missing or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidModelError(f"{path.parent.name}/{path.name} is missing; is the checkpoint fully downloaded?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidModelError(f"{path.parent.name}/{path.name} is not JSON: {error}; download it again") from None
    if not isinstance(value, dict):
        raise InvalidModelError(f"{path.parent.name}/{path.name} holds no JSON object")
    return value


def model_index(folder: Path) -> dict[str, Any]:
    """Read `model_index.json`, which makes a folder a diffusers folder.

    Raises:
        InvalidModelError: There is none.
    """
    if not (folder / "model_index.json").is_file():
        raise InvalidModelError(
            f"{folder.name} has no model_index.json, so it is not a diffusers folder; "
            "single-file checkpoints must first be converted with diffusers' `save_pretrained`"
        )
    return read_json(folder / "model_index.json")


def check_components(index: Mapping[str, Any], folder: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse a checkpoint that lacks a component, or whose component is of an unknown class.

    Args:
        index: `model_index.json`.
        folder: The diffusers folder.
        classes: Component to the class names that it may have.

    Raises:
        InvalidModelError: Names the component.
    """
    for component, allowed in classes.items():
        entry = index.get(component)
        if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None or not (folder / component).is_dir():
            raise InvalidModelError(f"component {component} is missing; model_index.json and a folder {component}/ must name it")
        if entry[1] not in allowed:
            raise InvalidModelError(f"component {component} is a {entry[1]}; supported: {', '.join(allowed)}")


def tensor_headers(component: Path, stem: str) -> dict[str, TensorHeader]:
    """Read the headers of a component's weights, sharded or not, and compare them with the files' sizes.

    Args:
        component: For example `…/transformer`.
        stem: `diffusion_pytorch_model` for diffusers' components, `model` for transformers'.

    Raises:
        InvalidModelError: No weights, a shard or tensor that the index names is missing, or a file is truncated.
        UnsafeModelError: Only pickled weights.
    """
    index_path = component / f"{stem}.safetensors.index.json"
    single = component / f"{stem}.safetensors"
    if not index_path.is_file():
        if not single.is_file():
            _raise_missing_weights(component, single.name)
        return _file_headers(single)
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(Path(str(name)).name == name for name in weight_map.values()):
        raise InvalidModelError(f"{component.name}/{index_path.name} has no proper weight_map")
    headers: dict[str, TensorHeader] = {}
    for shard in sorted(set(weight_map.values())):
        headers.update(_file_headers(component / shard))
    if missing := sorted(set(weight_map) - set(headers)):
        raise InvalidModelError(f"{component.name}: {names(missing)} named by {index_path.name} but in no shard")
    return headers


def check_tensors(component: str, headers: Mapping[str, TensorHeader], expected: Mapping[str, Sequence[int] | None]) -> None:
    """Compare the tensors that a component must have with those it has.

    Args:
        component: For messages.
        headers: What is there; more than expected is allowed.
        expected: Tensor name to shape; None where the shape does not matter.

    Raises:
        InvalidModelError: Names the tensors that are missing, misshapen or in an unknown number format.
    """
    if missing := [name for name in expected if name not in headers]:
        raise InvalidModelError(f"{component}: {names(missing)} missing from its weights; config.json promises more than there is")
    for name, shape in expected.items():
        header = headers[name]
        if shape is not None and header.shape != tuple(shape):
            raise InvalidModelError(f"{component}: {name} has shape {list(header.shape)}, but config.json promises {list(shape)}")
        if header.dtype not in FLOAT_DTYPES:
            raise InvalidModelError(
                f"{component}: {name} is {header.dtype}; give the unquantized checkpoint in one of {', '.join(FLOAT_DTYPES)}"
            )


def names(items: Sequence[str], limit: int = 5) -> str:
    """Return the first few names and how many more there are, for messages."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _raise_missing_weights(component: Path, wanted: str) -> None:
    pickles = sorted(path.name for pattern in _PICKLES for path in component.glob(pattern))
    if pickles:
        raise UnsafeModelError(f"{component.name} has only {names(pickles)}, which may hold code; convert it to safetensors")
    raise InvalidModelError(f"{component.name}/{wanted} is missing; is the checkpoint fully downloaded?")


def _file_headers(path: Path) -> dict[str, TensorHeader]:
    """Source: https://github.com/huggingface/safetensors, section Format."""
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise InvalidModelError(f"{name} is missing; is the checkpoint fully downloaded?")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise InvalidModelError(f"{name} is truncated or no safetensors file ({size} bytes); download it again")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        headers = {key: TensorHeader(str(entry["dtype"]), tuple(entry["shape"])) for key, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InvalidModelError(f"{name} has a broken header ({error}); download it again") from None
    if size != 8 + length + end:
        raise InvalidModelError(f"{name} has {size} bytes but its header promises {8 + length + end}; download it again")
    return headers
