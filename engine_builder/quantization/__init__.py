"""Low-precision number formats: their arithmetic, and fitting them to a component with ModelOpt."""

from __future__ import annotations

from engine_builder.quantization.checkpoint import restore_quantized, save_quantized
from engine_builder.quantization.quantize import quantize
from engine_builder.quantization.summary import QuantizationSummary

__all__ = ["QuantizationSummary", "quantize", "restore_quantized", "save_quantized"]
