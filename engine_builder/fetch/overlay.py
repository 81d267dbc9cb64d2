"""Reads a distilled student's weights, whatever wrote them, as the tensors of the transformer that they replace; no code is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffusion_api.model_spec import StudentFormat
from engine_builder.errors import InvalidModelError, UnsafeModelError
from engine_builder.fetch.sharded import dcp_folder, load_dcp
from engine_builder.fetch.tensor_files import TensorInfo, read_header

WRAPPERS = ("module.", "_orig_mod.", "net.", "transformer.")
"""What DDP, torch.compile, FastGen's network dictionary and FastGen's network class put before diffusers' names."""
TRAINING_ONLY = ("logvar_linear",)
"""FastGen's head for the loss weight: not part of the network that draws. Source: NVlabs/FastGen, fastgen/networks."""
NAMED = 3
"""How many names an error lists."""


def load_student(path: Path, format: StudentFormat, expected: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    """Return a student's tensors under the transformer's own names.

    Args:
        path: FastGen: a `.pth` file or a DCP folder. Diffusers: a safetensors file, or a folder with one or several.
        format: Which of these.
        expected: The tensors of the transformer that they replace, see `expected_tensors`.

    Returns:
        Exactly the expected names and shapes, in the student's own dtype, on the CPU. The moving average is preferred.

    Raises:
        InvalidModelError: Damaged, or not of this transformer: keys are left over or missing, or have another shape; names them.
        UnsafeModelError: A pickle that holds more than tensors; it was not run.

    Source: NVlabs/FastGen, fastgen/utils/checkpointer.py (`{"model": {"net": …, "ema": …}, …}` and `<iteration>.<net>_model/`).
    """
    if not path.exists():
        raise InvalidModelError(f"the student's weights, {path.name}, are not there")
    tensors = _load_safetensors(path) if format is StudentFormat.DIFFUSERS else _load_fastgen(path)
    return _fitted(path.name, tensors, expected)


def write_student(path: Path, format: StudentFormat, transformer: Path, target: Path) -> Path:
    """Write a student as one safetensors file that a family lays over its transformer.

    Args:
        path: As `load_student`.
        format: As `load_student`.
        transformer: The checkpoint's transformer folder, of which only headers are read.
        target: File to write.

    Raises:
        InvalidModelError: As `load_student`.
        UnsafeModelError: As `load_student`.
    """
    tensors = load_student(path, format, expected_tensors(transformer))
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, target)
    return target


def expected_tensors(transformer: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a diffusers component by the headers of its safetensors files.

    Raises:
        InvalidModelError: A file is damaged, or there is none.
    """
    headers = [read_header(path, f"{transformer.name}/{path.name}") for path in sorted(transformer.glob("*.safetensors"))]
    if not headers:
        raise InvalidModelError(f"{transformer.name} has no safetensors file to lay the student over")
    return {name: info for header in headers for name, info in header.items()}


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise InvalidModelError(f"the student's folder {path.name} has no safetensors file; for a FastGen student set format: FastGen")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise InvalidModelError(f"the student's {file.name} is not a safetensors file or damaged: {error}") from error
    return tensors


def _load_fastgen(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return load_dcp(dcp_folder(path))
    return _network_of(path.name, _load_pickle(path))


def _load_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UnsafeModelError(
            f"the student's {path.name} is a pickle with more than tensors, which could run code, and was not loaded "
            f"({_first_line(error)}); save the weights alone: torch.save({{'model': state['model']}}, …)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InvalidModelError(f"the student's {path.name} is damaged or no torch file: {_first_line(error)}") from error


def _network_of(name: str, state: object) -> Mapping[str, Any]:
    """Descend from FastGen's whole training state to one network, preferring the moving average."""
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise InvalidModelError(f"the student's {name} holds a {type(state).__name__} instead of a dictionary of tensors")
    networks = {key: value for key, value in state.items() if isinstance(value, Mapping)}
    if not networks:
        return state
    averages = sorted(key for key in networks if str(key).startswith("ema"))
    if "ema" not in averages and len(averages) > 1:
        raise InvalidModelError(f"the student's {name} has several moving averages, {', '.join(averages)}; keep one and call it `ema`")
    chosen = "ema" if "ema" in averages else averages[0] if averages else "net"
    if chosen not in networks:
        raise InvalidModelError(f"the student's {name} has neither `ema` nor `net` but {', '.join(map(str, sorted(networks)))}")
    return networks[chosen]


def _fitted(name: str, tensors: Mapping[str, Any], expected: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    found = {_plain_name(str(key), expected): value for key, value in tensors.items()}
    found = {key: value for key, value in found.items() if not key.startswith(TRAINING_ONLY)}
    if leftovers := sorted(found.keys() - expected.keys()):
        raise InvalidModelError(f"student {name}: {_counted(leftovers)} not belong to this transformer: {_listed(leftovers)}")
    if missing := sorted(expected.keys() - found.keys()):
        raise InvalidModelError(f"student {name}: {len(missing)} of {len(expected)} tensors are missing: {_listed(missing)}")
    if strange := sorted(key for key, value in found.items() if not isinstance(value, torch.Tensor) or not value.is_floating_point()):
        raise InvalidModelError(f"student {name}: {len(strange)} values are not floating-point tensors: {_listed(strange)}")
    if wrong := sorted(key for key, value in found.items() if tuple(value.shape) != expected[key].shape):
        shapes = [f"{key} is {list(found[key].shape)} instead of {list(expected[key].shape)}" for key in wrong[:NAMED]]
        raise InvalidModelError(f"student {name}: {len(wrong)} tensors have another shape: {', '.join(shapes)}; it is of another size")
    return found


def _plain_name(key: str, expected: Mapping[str, TensorInfo]) -> str:
    while key not in expected:
        wrapper = next((wrapper for wrapper in WRAPPERS if key.startswith(wrapper)), None)
        if wrapper is None:
            return key
        key = key.removeprefix(wrapper)
    return key


def _counted(names: list[str]) -> str:
    return "1 key does" if len(names) == 1 else f"{len(names)} keys do"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line for line in lines if "GLOBAL" in line or "global" in line), lines[0]).strip()[:200]
