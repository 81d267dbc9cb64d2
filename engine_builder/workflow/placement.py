"""Where a model is simulated and in which type: decided by what fits, before anything is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion_api.accelerator import Accelerator
from engine_builder.errors import UnsupportedTargetError
from engine_builder.fetch.tensor_files import TensorInfo, check_tensor_files
from engine_builder.machine import memory_bytes

USABLE = 0.8
"""Share of the memory that weights may take; the rest is for activations, pictures and the libraries."""
GIB = 2**30


@dataclass(frozen=True)
class Placement:
    """Where a model is simulated, and in which type."""

    device: torch.device
    dtype: torch.dtype
    reason: str = ""
    """Why not in FP32 on a CPU; empty where it is, and on a GPU."""


@dataclass(frozen=True)
class ModelSize:
    """How much a model is to load."""

    parameters: Mapping[str, int]
    """Number of them, by component."""
    is_half: bool
    """Whether the checkpoint holds no floating-point number wider than 16 bit."""

    def bytes(self, width: int) -> int:
        """Return the bytes of all weights, each of `width` bytes."""
        return sum(self.parameters.values()) * width


def model_size(folder: Path) -> ModelSize:
    """Read the size of a diffusers folder from the headers of its tensor files."""
    return size_of_tensors(check_tensor_files(folder))


def size_of_tensors(files: Mapping[str, Mapping[str, TensorInfo]]) -> ModelSize:
    """Add up tensors by component, which is the first part of a file's path."""
    parameters: Counter[str] = Counter()
    for path, tensors in files.items():
        parameters[path.partition("/")[0]] += sum(math.prod(info.shape) for info in tensors.values())
    types = {info.dtype for tensors in files.values() for info in tensors.values()}
    return ModelSize(parameters, is_half=not types & {"F32", "F64"})


def placement_for(accelerator: Accelerator, size: ModelSize) -> Placement:
    """Return where to draw: a GPU's engine in its own BF16 on the GPU that is here, everything else on the CPU.

    There in FP32, or in BF16 where FP32 does not fit and the checkpoint is no wider itself.

    Raises:
        UnsupportedTargetError: The weights do not fit; says how much memory is needed.
    """
    if not accelerator.is_cpu and torch.cuda.is_available():
        _require(size.bytes(2), torch.cuda.get_device_properties(0).total_memory, "the GPU")
        return Placement(torch.device("cuda"), torch.bfloat16)
    memory = memory_bytes()
    if size.bytes(4) <= memory * USABLE:
        return Placement(torch.device("cpu"), torch.float32)
    if not size.is_half:
        _require(size.bytes(4), memory, "this machine")
    # An engine for a CPU is exported in FP32, to which one component at a time is widened.
    widened = 2 * max(size.parameters.values()) if accelerator.is_cpu else 0
    _require(size.bytes(2) + widened, memory, "this machine")
    reason = f"the weights take {size.bytes(4) / GIB:.1f} GiB in FP32, and this machine has {memory / GIB:.1f} GiB of memory"
    return Placement(torch.device("cpu"), torch.bfloat16, f"drawn in BF16, the checkpoint's own type: {reason}")


def fits_beside(placement: Placement, size: ModelSize, engines_bytes: int) -> bool:
    """Tell whether compiled engines and the unoptimized model fit into the memory together."""
    memory = torch.cuda.get_device_properties(0).total_memory if placement.device.type == "cuda" else memory_bytes()
    return size.bytes(placement.dtype.itemsize) + engines_bytes <= memory * USABLE


def _require(weights: int, memory: int, place: str) -> None:
    if weights > memory * USABLE:
        raise UnsupportedTargetError(
            f"the model's weights take {weights / GIB:.1f} GiB while it is measured, and {place} has {memory / GIB:.1f} GiB of memory; "
            f"build where there are at least {math.ceil(weights / USABLE / GIB)} GiB"
        )
