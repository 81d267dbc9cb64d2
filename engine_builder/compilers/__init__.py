"""Compilers: exported graphs in, engine files out."""

from __future__ import annotations

from diffusion_api.accelerator import Accelerator
from engine_builder.compilers.base import AxisRange, CompiledPiece, Compiler, CompileRequest, ShapeProfile, profile_of
from engine_builder.compilers.openvino import OpenVinoCompiler
from engine_builder.compilers.tensorrt import BuilderSettings, TensorRtCompiler

__all__ = [
    "AxisRange",
    "BuilderSettings",
    "CompileRequest",
    "CompiledPiece",
    "Compiler",
    "ShapeProfile",
    "compiler_for",
    "profile_of",
]


def compiler_for(accelerator: Accelerator) -> Compiler:
    """Return the accelerator's compiler; whether it is installed and able shows in `check`."""
    return OpenVinoCompiler() if accelerator.is_cpu else TensorRtCompiler(accelerator)
