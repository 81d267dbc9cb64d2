"""Asks this machine for its GPU: TensorRT compiles on the very GPU that will run the engine."""

from __future__ import annotations

from diffusion_api.accelerator import Accelerator
from engine_builder.errors import UnsupportedTargetError


def check_gpu(accelerator: Accelerator) -> None:
    """Check that the first GPU here has the accelerator's compute capability.

    Raises:
        UnsupportedTargetError: there is none, or another one; the message says where to build.
    """
    import torch  # noqa: PLC0415  # Compilers are chosen and checked where no torch is needed, unless it is TensorRT.

    wanted = accelerator.resolved_compute_capability
    if not torch.cuda.is_available():
        raise UnsupportedTargetError(
            f"TensorRT compiles on the GPU itself, and this machine has none: build on a node with {accelerator.product} "
            "(the operator's Job does), or set spec.accelerator.compiler to TensorRTRTX, which compiles for GeForce and RTX GPUs anywhere"
        )
    found = ".".join(map(str, torch.cuda.get_device_capability(0)))
    if found != wanted:
        raise UnsupportedTargetError(
            f"this machine's {torch.cuda.get_device_name(0)} has compute capability {found}, {accelerator.product} has {wanted}: "
            f"build on a node with {accelerator.product}"
        )
