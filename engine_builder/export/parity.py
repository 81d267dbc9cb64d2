"""Whether an exported graph computes what torch computes: run on ONNX Runtime, at shapes it was not traced with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
import torch

from engine_builder.errors import CompileError
from engine_builder.export.exporter import ExportedGraph
from engine_builder.export.trace import traced_input
from engine_builder.families.base import GraphModule

Inputs = Mapping[str, torch.Tensor]

TOLERANCE = 1e-3
"""Relative error that is accepted of an unquantized graph: rounding of FP32 is 1e-6, of a picture to 8 bits 2e-4."""
QUANTIZED_TOLERANCE = 1e-2
"""The same for a quantized one, of the median over samples. A value near the middle of two codes goes either way: torch itself, its
inputs changed by 2e-7, moves by up to 1.2e-2 on one sample in five of the digits body. A quantizer left out moves all by 2e-2 or more."""
FLIP_TOLERANCE = 1e-1
"""What one sample of a quantized graph may be off."""


def example_inputs(graph: GraphModule, axes: Mapping[str, int], batch: int) -> dict[str, torch.Tensor]:
    """Return random inputs of a piece at the given lengths; the same on every call."""
    return {spec.name: traced_input(spec, axes, batch) for spec in graph.inputs}


def check_parity(exported: ExportedGraph, graph: GraphModule, inputs: Sequence[Inputs], tolerance: float | None = None) -> float:
    """Return the relative error ‖ONNX − torch‖₂ / ‖torch‖₂: the largest of any sample, or the median of a quantized graph's samples.

    Args:
        exported: A portable graph of FP32 layers: ONNX Runtime's CPU kernels know no BF16.
        graph: The piece that it was exported from.
        inputs: By name, each with a batch axis; take at least two shapes and batch sizes.
        tolerance: Largest error that is accepted; unset: `TOLERANCE` or `QUANTIZED_TOLERANCE`.

    Raises:
        CompileError: The error is above `tolerance`, or ONNX Runtime refuses the graph; names the piece.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(exported.path, options, providers=["CPUExecutionProvider"])
        errors = [error for each in inputs for error in _errors(session, graph, each)]
    except _RUNTIME_ERRORS as error:
        raise CompileError(f"{exported.name}: ONNX Runtime refuses the exported graph: {error}") from error
    typical = statistics.median(errors) if exported.quantizers else max(errors)
    accepted = tolerance or (QUANTIZED_TOLERANCE if exported.quantizers else TOLERANCE)
    if not (typical <= accepted and max(errors) <= max(accepted, FLIP_TOLERANCE)):
        raise CompileError(
            f"{exported.name}: the exported graph is {typical:.2g} (relative; at most {max(errors):.2g}) away from torch; "
            f"{accepted:.2g} is accepted. This is a bug of the exporter: report it"
        )
    return typical


_RUNTIME_ERRORS = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


def _errors(session: onnxruntime.InferenceSession, graph: GraphModule, inputs: Inputs) -> list[float]:
    """Return each sample's error, the largest of its outputs."""
    with torch.no_grad():
        expected = graph.module(*(inputs[spec.name] for spec in graph.inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    names = [value.name for value in session.get_inputs()]  # An input that the graph does not read is no input of the file.
    actual = session.run([spec.name for spec in graph.outputs], {name: inputs[name].numpy() for name in names})
    outputs = [_relative(got, want.numpy()) for got, want in zip(actual, expected, strict=True)]
    return [max(sample) for sample in zip(*outputs, strict=True)]


def _relative(actual: np.ndarray, expected: np.ndarray) -> list[float]:
    if actual.shape != expected.shape:
        return [math.inf] * len(expected)
    wide = expected.astype(np.float64).reshape(len(expected), -1)
    difference = np.linalg.norm(actual.astype(np.float64).reshape(wide.shape) - wide, axis=1)
    errors = difference / np.maximum(np.linalg.norm(wide, axis=1), 1e-30)
    return [float(error) if np.isfinite(error) else math.inf for error in errors]
