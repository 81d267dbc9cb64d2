"""Asks this machine for its GPU and its TensorRT by their C libraries, which need neither torch nor Python bindings.

NVIDIA's Triton image has the libraries and no bindings; the driver's NVML comes with the container runtime. An image's build checks
its library by `python -m engine_runtime.nvidia tensorrt 11.1.0.106`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

LIBRARIES = {"tensorrt": "libnvinfer.so", "tensorrt_rtx": "libtensorrt_rtx.so"}
"""Shared library behind each module that a plan's `library` option names."""
LIBRARY_NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""What people call each of them."""
NVML = "libnvidia-ml.so.1"

Load = Callable[[str], ctypes.CDLL]


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    """For example `NVIDIA B200`."""
    compute_capability: str
    """For example `10.0`."""


class NoGpuError(RuntimeError):
    """There is no GPU, or its driver does not answer."""


def first_gpu(load: Load = ctypes.CDLL) -> Gpu:
    """Return the first GPU of this container; of a MIG slice, the GPU that it is cut from.

    Raises:
        NoGpuError: There is none; the message says why.

    Source: NVML API reference, "Device queries".
    """
    try:
        nvml = load(NVML)
    except OSError as error:
        raise NoGpuError(f"no NVIDIA driver: {error}") from None
    _check("nvmlInit_v2", nvml.nvmlInit_v2())
    try:
        device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(96)  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
        _check("nvmlDeviceGetHandleByIndex_v2", nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(device)))
        capability = nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        _check("nvmlDeviceGetCudaComputeCapability", capability)
        _check("nvmlDeviceGetName", nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(len(name))))
    finally:
        nvml.nvmlShutdown()
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def library_version(module: str, major: str, load: Load = ctypes.CDLL) -> str | None:
    """Return the full version of TensorRT or TensorRT-RTX on this machine, for example `11.1.0.106`; None where there is none.

    Args:
        module: `tensorrt` or `tensorrt_rtx`.
        major: Major version that is looked for first; the libraries carry it in their names.
        load: Loads a shared library.
    """
    file = LIBRARIES[module]
    for name in (f"{file}.{major}", file):
        with contextlib.suppress(OSError):
            return _version(load(name))
    try:
        # A wheel's libraries are on no search path. A library of another major version without a plain name is found here alone.
        return str(importlib.import_module(module).__version__)
    except (ImportError, OSError):
        return None


def _version(library: ctypes.CDLL) -> str:
    parts = ("Major", "Minor", "Patch", "Build")  # All since TensorRT 10. Source: NvInferRuntime.h.
    return ".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in parts)


def _check(function: str, result: int) -> None:
    if result != 0:
        raise NoGpuError(f"{function} of the NVIDIA driver failed with code {result}")


def main(arguments: list[str]) -> str | None:
    """Compare a library here with the version that is wanted; returns what is wrong."""
    module, wanted = arguments
    found = library_version(module, wanted.partition(".")[0])
    return None if found == wanted else f"{module} {wanted} is wanted, and this image has {found or 'none'}: change the base or TENSORRT"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
