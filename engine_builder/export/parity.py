"""Whether an exported graph computes what torch computes: run on ONNX Runtime, at shapes it was not traced with."""

from __future__ import annotations

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
"""Relative error that is accepted: rounding of FP32 is 1e-6; a value near the middle of two INT8 or FP8 codes may go either way."""


def example_inputs(graph: GraphModule, axes: Mapping[str, int], batch: int) -> dict[str, torch.Tensor]:
    """Return random inputs of a piece at the given lengths; the same on every call."""
    return {spec.name: traced_input(spec, axes, batch) for spec in graph.inputs}


def check_parity(exported: ExportedGraph, graph: GraphModule, inputs: Sequence[Inputs], tolerance: float = TOLERANCE) -> float:
    """Return the largest relative error ‖ONNX − torch‖₂ / ‖torch‖₂ over all outputs and input sets.

    Args:
        exported: A portable graph of FP32 layers: ONNX Runtime's CPU kernels know no BF16.
        graph: The piece that it was exported from.
        inputs: By name, each with a batch axis; take at least two shapes and batch sizes.
        tolerance: Largest error that is accepted.

    Raises:
        CompileError: The error is above `tolerance`, or ONNX Runtime refuses the graph; names the piece.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(exported.path, options, providers=["CPUExecutionProvider"])
        worst = max(_error(session, graph, each) for each in inputs)
    except _RUNTIME_ERRORS as error:
        raise CompileError(f"{exported.name}: ONNX Runtime refuses the exported graph: {error}") from error
    if not worst <= tolerance:
        raise CompileError(f"{exported.name}: the exported graph is {worst:.2g} (relative) away from torch; {tolerance:.2g} is accepted")
    return worst


_RUNTIME_ERRORS = (
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


def _error(session: onnxruntime.InferenceSession, graph: GraphModule, inputs: Inputs) -> float:
    with torch.no_grad():
        expected = graph.module(*(inputs[spec.name] for spec in graph.inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    names = [value.name for value in session.get_inputs()]  # An input that the graph does not read is no input of the file.
    actual = session.run([spec.name for spec in graph.outputs], {name: inputs[name].numpy() for name in names})
    return max(_relative(got, want.numpy()) for got, want in zip(actual, expected, strict=True))


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    wide = expected.astype(np.float64)
    difference = float(np.linalg.norm(actual.astype(np.float64) - wide))
    error = difference / max(float(np.linalg.norm(wide)), 1e-30)
    return error if np.isfinite(error) else float("inf")
