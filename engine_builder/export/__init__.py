"""One exporter for every number format: a graph in torch becomes an ONNX file with the weights in their low precision."""

from __future__ import annotations

from engine_builder.export.compose import compose
from engine_builder.export.exporter import ExportedGraph, TracedGraph, export_graph, trace_graph
from engine_builder.export.parity import check_parity, example_inputs

__all__ = ["ExportedGraph", "TracedGraph", "check_parity", "compose", "example_inputs", "export_graph", "trace_graph"]
