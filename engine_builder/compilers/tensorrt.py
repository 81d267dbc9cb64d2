"""Compiles for NVIDIA GPUs by TensorRT, or by TensorRT-RTX, in one code path.

Networks are strongly typed: the graph's own types and its Q/DQ nodes decide every precision, which is all that TensorRT 11 and
TensorRT-RTX have left. Three things differ: TensorRT compiles on the very GPU and keeps a timing cache; TensorRT-RTX compiles ahead
on any machine, for compute capabilities that are named.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusion_api.accelerator import Accelerator
from diffusion_api.accelerator import Compiler as CompilerName
from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from diffusion_api.optimization import QuantizationFormat
from engine_builder.compilers.base import CompiledPiece, CompileRequest, require_formats, shape_text
from engine_builder.compilers.gpu import check_gpu
from engine_builder.compilers.plan_file import build_plan
from engine_builder.compilers.timing_cache import attach_timing_cache, save_timing_cache, timing_cache_file
from engine_builder.errors import CompileError, UnsupportedTargetError
from engine_runtime.executors.tensorrt_library import Library, Messages, load_library

FILE = "model.plan"
MODULES = {CompilerName.TENSORRT: "tensorrt", CompilerName.TENSORRT_RTX: "tensorrt_rtx"}
INFORMATION = re.compile(r"Make sure (?:input|output) .* has Int64 binding")
"""What TensorRT's parser (seen with 10.14 and TensorRT-RTX 1.7) says at the level of warnings of every graph that is as it should be."""
# Names of `trt.DataType`.
DTYPES = {
    Dtype.FP32: "FLOAT",
    Dtype.FP16: "HALF",
    Dtype.BF16: "BF16",
    Dtype.INT64: "INT64",
    Dtype.INT32: "INT32",
    Dtype.UINT8: "UINT8",
}


@dataclass(frozen=True)
class BuilderSettings:
    """TensorRT's builder settings that we set; all others keep TensorRT's defaults."""

    workspace_mib: int = 0
    """Most scratch memory of a kernel, in MiB; 0: all that the GPU has."""
    optimization_level: int = 3
    """0 to 5: how long to search for kernels. Source: TensorRT API, `IBuilderConfig.builder_optimization_level`; 3 is its default."""
    profiling_verbosity: str = "LAYER_NAMES_ONLY"
    """What an engine tells of its layers: `NONE`, `LAYER_NAMES_ONLY` or `DETAILED`."""


class TensorRtCompiler:
    """TensorRT or TensorRT-RTX for one accelerator."""

    def __init__(self, accelerator: Accelerator, builder: BuilderSettings | None = None) -> None:
        self.accelerator = accelerator
        self.builder = builder or BuilderSettings()
        self.name: str = accelerator.resolved_compiler.value

    @property
    def is_rtx(self) -> bool:
        """True for TensorRT-RTX."""
        return self.accelerator.resolved_compiler is CompilerName.TENSORRT_RTX

    def version(self) -> str:
        """Return for example `1.7.1.116`."""
        return str(self._load().module.__version__)

    def settings(self) -> Mapping[str, str]:
        """Return the builder settings."""
        return {name: str(value) for name, value in asdict(self.builder).items()}

    def check(self, accelerator: Accelerator, formats: Collection[QuantizationFormat]) -> None:
        """Refuse formats without kernels, GPUs that TensorRT-RTX has no code for, and, with TensorRT, machines without the GPU."""
        require_formats(accelerator, formats)
        library = self._load()
        if not self.is_rtx:
            check_gpu(accelerator)
            return
        offered = rtx_capabilities(library)
        if accelerator.resolved_compute_capability not in offered:
            raise UnsupportedTargetError(
                f"TensorRT-RTX {self.version()} compiles for compute capabilities {', '.join(offered)}, not for "
                f"{accelerator.product} ({accelerator.resolved_compute_capability}); set spec.accelerator.compiler to TensorRT"
            )

    def compile(self, request: CompileRequest, output_dir: Path, timing_cache: Path | None = None) -> CompiledPiece:
        """Parse, compile and write `model.plan`; see `Compiler.compile`."""
        started = time.monotonic()
        library = self._load()
        with library.messages() as messages:
            trt = library.module
            builder = trt.Builder(library.logger)
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = trt.OnnxParser(network, library.logger)
            if not parser.parse_from_file(str(request.onnx)):
                raise CompileError(_parser_text(self.name, parser, request))
            _check_network(trt, network, request)
            _let_attention_decompose(trt, network)
            config = self._config(library, builder, network, request)
            timings = timing_cache_file(timing_cache, self.version(), self.accelerator) if timing_cache and not self.is_rtx else None
            if timings:
                attach_timing_cache(config, timings)
            file = output_dir / FILE
            if not build_plan(trt, builder, network, config, file):
                raise CompileError(_build_text(self.name, request, messages))
            if timings:
                save_timing_cache(config, timings)
        return CompiledPiece(
            piece=self._piece(request),
            folder=output_dir,
            size_bytes=file.stat().st_size,
            seconds=time.monotonic() - started,
            layers=int(network.num_layers),
            warnings=tuple(text for text in messages.warnings if not INFORMATION.search(text)),
        )

    def _load(self) -> Library:
        try:
            return load_library(MODULES[self.accelerator.resolved_compiler])
        except ModuleNotFoundError as error:
            raise UnsupportedTargetError(f"{self.name} is not usable here: {error}, or build in the operator's builder image") from error

    def _config(self, library: Library, builder: Any, network: Any, request: CompileRequest) -> Any:
        trt = library.module
        config = builder.create_builder_config()
        config.builder_optimization_level = self.builder.optimization_level
        config.profiling_verbosity = getattr(trt.ProfilingVerbosity, self.builder.profiling_verbosity)
        if self.builder.workspace_mib:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.builder.workspace_mib * 2**20)
        if self.is_rtx:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, self._capability_name()), 0)
        profile = builder.create_optimization_profile()
        for spec in request.inputs:
            profile.set_shape(spec.name, *input_shapes(request, spec))
        if config.add_optimization_profile(profile) < 0:
            raise CompileError(f"{self.name} refused the sizes of {request.name}: {profile_options(request)}")
        return config

    def _capability_name(self) -> str:
        return f"SM{(self.accelerator.resolved_compute_capability or '').replace('.', '')}"

    def _piece(self, request: CompileRequest) -> Piece:
        return Piece(
            name=request.name,
            executor=Executor.TENSORRT,
            file=FILE,
            inputs=request.inputs,
            outputs=request.outputs,
            options={
                "library": self._load().module.__name__,
                "version": self.version(),
                "computeCapability": self.accelerator.resolved_compute_capability or "",
                **profile_options(request),
            },
        )


def rtx_capabilities(library: Library) -> tuple[str, ...]:
    """Return the compute capabilities that TensorRT-RTX compiles for, for example `8.9`, ascending."""
    numbers = [name.removeprefix("SM") for name in dir(library.module.ComputeCapability) if name.startswith("SM")]
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(numbers, key=int))


def input_shapes(request: CompileRequest, spec: TensorSpec) -> tuple[tuple[int, ...], ...]:
    """Return the least, the best and the largest shape of an input, batch first."""
    ranges = request.profile.ranges(spec)
    return (
        tuple(axis.minimum for axis in ranges),
        tuple(axis.optimum for axis in ranges),
        tuple(axis.maximum for axis in ranges),
    )


def profile_options(request: CompileRequest) -> dict[str, str]:
    """Return the profile as options, for example `{"profile.x": "1x16x128 1x64x128 8x64x128"}`: a plan tells it only on a GPU."""
    return {f"profile.{spec.name}": " ".join(map(shape_text, input_shapes(request, spec))) for spec in request.inputs}


def _check_network(trt: Any, network: Any, request: CompileRequest) -> None:
    found_inputs = [network.get_input(index) for index in range(network.num_inputs)]
    found_outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for kind, tensors, specs in (("inputs", found_inputs, request.inputs), ("outputs", found_outputs, request.outputs)):
        found = {tensor.name: tensor.dtype for tensor in tensors}
        wanted = {spec.name: getattr(trt.DataType, DTYPES[spec.dtype]) for spec in specs}
        if found != wanted:
            raise CompileError(f"{request.name}: the graph's {kind} are {_types(found)}, the family's {_types(wanted)}; make them agree")


def _types(tensors: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str(dtype).rsplit('.', 1)[-1]}" for name, dtype in sorted(tensors.items()))


def _parser_text(name: str, parser: Any, request: CompileRequest) -> str:
    problems = [parser.get_error(index) for index in range(min(3, parser.num_errors))]
    texts = (f"node {problem.node_name() or '?'} (op {problem.node_operator() or '?'}): {problem.desc()}" for problem in problems)
    return (
        f"{name} cannot read {request.name} ({request.onnx.name}): {'; '.join(texts) or 'the file is not ONNX'}. "
        "Export the graph again with this builder; if it stays, report it with that file"
    )


def _build_text(name: str, request: CompileRequest, messages: Messages) -> str:
    said = "; ".join(messages.errors[-3:]) or "it gave no reason"
    return f"{name} cannot compile {request.name} for {profile_options(request)}: {said}. Try another quantization format, or report it"


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """Allow attention that no fused kernel takes (a VAE's single head of 512 channels) as matrix products; it is an error otherwise."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # TensorRT's way to cast in Python.
            layer.attention.decomposable = True
