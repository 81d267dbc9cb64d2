"""Compiles for the CPU: ONNX to OpenVINO IR. Weights are kept in the recipe's types; the plugin picks kernels when a piece is loaded."""

from __future__ import annotations

import importlib
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffusion_api.accelerator import Accelerator
from diffusion_api.accelerator import Compiler as CompilerName
from diffusion_api.engine_manifest import Executor, Piece, TensorSpec
from diffusion_api.optimization import QuantizationFormat
from diffusion_api.recipe import Precision
from engine_builder.compilers.base import AxisRange, CompiledPiece, CompileRequest
from engine_builder.compilers.openvino_rotary import rewrite_rotary
from engine_builder.compilers.openvino_weights import store_weights_in_fp16
from engine_builder.errors import CompileError, UnsupportedTargetError

FILE = "model.xml"
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
INSTALL = "`pip install diffusion-operator[cpu]`"


class OpenVinoCompiler:
    """OpenVINO for CPUs."""

    name: str = CompilerName.OPENVINO.value

    def version(self) -> str:
        """Return for example `2026.4.1-22982-e213a147257-releases/2026/4`."""
        return str(_openvino().get_version())

    def settings(self) -> Mapping[str, str]:
        """Return the properties that every piece gets, and the revision of what is rewritten before."""
        return {**PROPERTIES, "rewrites": "2"}

    def check(self, accelerator: Accelerator, formats: Collection[QuantizationFormat]) -> None:
        """Refuse GPUs; a CPU runs INT8 and only reproduces the arithmetic of every other low-precision format."""
        if not accelerator.is_cpu:
            raise UnsupportedTargetError(
                f"OpenVINO compiles for product CPU, not {accelerator.product}; leave spec.accelerator.compiler out"
            )
        _openvino()

    def compile(self, request: CompileRequest, output_dir: Path, timing_cache: Path | None = None) -> CompiledPiece:
        """Convert a graph; OpenVINO keeps no timings."""
        started = time.monotonic()
        openvino = _openvino()
        model = _read(openvino, request)
        _check_names(model, request)
        layers = len(model.get_ops())
        model.reshape({spec.name: _shape(openvino, request, spec) for spec in request.inputs})
        rewrite_rotary(model)
        in_16_bits = request.precision is not Precision.FP32
        if in_16_bits:
            store_weights_in_fp16(model)
        file = output_dir / FILE
        openvino.save_model(model, str(file), compress_to_fp16=in_16_bits)
        piece = Piece(
            name=request.name,
            executor=Executor.OPENVINO,
            file=FILE,
            inputs=request.inputs,
            outputs=request.outputs,
            options={**PROPERTIES, "INFERENCE_PRECISION_HINT": precision_hint(request.precision, capabilities())},
        )
        return CompiledPiece(
            piece=piece,
            folder=output_dir,
            size_bytes=file.with_suffix(".bin").stat().st_size,
            seconds=time.monotonic() - started,
            layers=layers,
        )


def precision_hint(precision: Precision, capabilities: Collection[str]) -> str:
    """Return `bf16` where it was asked for and the CPU computes it (AMX or AVX512-BF16), else `f32`."""
    return "bf16" if precision is Precision.BF16 and "BF16" in capabilities else "f32"


def capabilities() -> tuple[str, ...]:
    """Return what OpenVINO says that this CPU computes natively, for example `BF16` and `INT8`."""
    return tuple(_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise UnsupportedTargetError(f"OpenVINO is not installed ({error}); install it with {INSTALL}") from error


def _read(openvino: Any, request: CompileRequest) -> Any:
    try:
        return openvino.Core().read_model(str(request.onnx))
    except RuntimeError as error:
        raise CompileError(f"OpenVINO cannot read {request.name} ({request.onnx.name}): {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    """Return the lines that say something: OpenVINO's messages begin with its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[-3:])


def _check_names(model: Any, request: CompileRequest) -> None:
    for kind, ports, specs in (("inputs", model.inputs, request.inputs), ("outputs", model.outputs, request.outputs)):
        found, wanted = {name for port in ports for name in port.get_names()}, {spec.name for spec in specs}
        if not wanted <= found or len(ports) != len(specs):
            raise CompileError(f"{request.name}: the graph's {kind} are {sorted(found)}, the family's {sorted(wanted)}; make them agree")


def _shape(openvino: Any, request: CompileRequest, spec: TensorSpec) -> Any:
    """Axes of one size become constants; the others are bounded, which lets OpenVINO plan its memory."""
    return openvino.PartialShape([_dimension(openvino, axis) for axis in request.profile.ranges(spec)])


def _dimension(openvino: Any, axis: AxisRange) -> Any:
    return openvino.Dimension(axis.minimum) if axis.is_fixed else openvino.Dimension(axis.minimum, axis.maximum)
