"""From a torch module to an ONNX graph in memory, with quantizers as single nodes and weights left where they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache

import onnx_ir as ir
import torch
from modelopt.torch.quantization.utils import export_torch_mode
from torch import nn
from torch.onnx._internal.exporter import _registration

from diffusion_api.engine_manifest import TensorSpec
from engine_builder.border_types import TORCH_DTYPES
from engine_builder.errors import CompileError
from engine_builder.export.blocks import Call, blocks_as_nodes, expand_blocks
from engine_builder.families.base import GraphModule

OPSET = 23
"""The first with Attention and RMSNormalization as single operators, and with FP4; TensorRT 10.14, OpenVINO 2026 and ORT 1.32 read it."""

# torch 2.15 reads the sources of its hundreds of ONNX operators anew for each export, which takes longer than a small piece itself.
_registration.ONNXRegistry.from_torchlib = staticmethod(cache(_registration.ONNXRegistry.from_torchlib))  # type: ignore[method-assign]

BATCH = "batch"
_TRACED_BATCH = 2  # torch.export makes a constant of an axis of length 1.


def trace(graph: GraphModule, example: Mapping[str, int]) -> ir.Model:
    """Export a graph with its batch and every named axis dynamic.

    Args:
        graph: The piece.
        example: A length of each named axis to trace with; above 1, and different axes of different lengths where they can be.

    Raises:
        CompileError: torch cannot export the graph; the message names it.
    """
    inputs = tuple(traced_input(spec, example) for spec in graph.inputs)
    dynamic = tuple(_dynamic_axes(spec) for spec in graph.inputs)
    names = [[spec.name for spec in side] for side in (graph.inputs, graph.outputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own internals, which nobody here can change.
        try:
            with blocks_as_nodes(graph.module) as blocks:
                model = _exported(graph.module, inputs, dynamic, *names)
            expand_blocks(model, blocks, _trace_block)
        except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as error:
            raise CompileError(f"{graph.name}: torch cannot export this graph: {error}") from error
    return model


def traced_input(spec: TensorSpec, example: Mapping[str, int], batch: int = _TRACED_BATCH) -> torch.Tensor:
    """Return an input of the right shape and type: standard normal numbers, or ones.

    Raises:
        KeyError: `example` lacks a named axis.
    """
    shape = (batch, *(example[dim] if isinstance(dim, str) else dim for dim in spec.dims))
    dtype = TORCH_DTYPES[spec.dtype]
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones(shape, dtype=dtype)


def _dynamic_axes(spec: TensorSpec) -> dict[int, object]:
    # DYNAMIC and not a named `Dim`: an axis may be the sum of two others (text and image tokens), which torch finds out by itself.
    named = [0, *(axis for axis, dim in enumerate(spec.dims, start=1) if isinstance(dim, str))]
    return dict.fromkeys(named, torch.export.Dim.DYNAMIC)


def _trace_block(call: Call) -> ir.Model:
    inputs = tuple(argument.example() for argument in call.arguments)
    dynamic = tuple(dict.fromkeys(argument.dynamic, torch.export.Dim.DYNAMIC) for argument in call.arguments)
    return _exported(call.block, inputs, dynamic)


def _exported(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    dynamic: tuple[dict[int, object], ...],
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> ir.Model:
    with torch.no_grad(), export_torch_mode():
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
    exported = torch.onnx.export(
        program,
        (),
        None,
        input_names=input_names,
        output_names=output_names,
        dynamo=True,
        opset_version=OPSET,
        optimize=False,
        verbose=False,
    )
    assert exported is not None
    return exported.model
