"""Our arithmetic as ModelOpt's quantization backend, which runs on any device and leaves one node in an exported graph.

ModelOpt's own block formats need CUDA; its public hook for backends takes their place without a change to the library. While a graph is
traced (`export_torch_mode`) a quantizer becomes the symbolic node `diffusion_operator::FakeQuantize`, which `engine_builder.export`
turns into what the target runs.
"""

from __future__ import annotations

from typing import Any

import torch
from modelopt.torch.quantization.nn.modules.tensor_quantizer import is_registered_quant_backend, register_quant_backend
from modelopt.torch.quantization.utils import is_torch_export_mode

from engine_builder.quantization.numerics import Encoding, fake_quantize

BACKEND = "diffusion-operator"
FAKE_QUANTIZE_DOMAIN = "diffusion_operator"
FAKE_QUANTIZE = "FakeQuantize"

_UNCALIBRATED = (Encoding.FP8_TOKEN, Encoding.MXFP8)


def register() -> None:
    """Make the backend known to ModelOpt; a second call changes nothing."""
    if not is_registered_quant_backend(BACKEND):
        register_quant_backend(BACKEND, _run)


def _run(values: torch.Tensor, quantizer: Any) -> torch.Tensor:
    encoding = Encoding(quantizer.backend_extra_args["encoding"])
    # Private, but the only way to what ModelOpt means: the calibrated amax, or while AWQ searches, that of this very tensor.
    amax = None if encoding in _UNCALIBRATED else quantizer._get_amax(values)
    if is_torch_export_mode():
        inputs = (values,) if amax is None else (values, amax)
        node = f"{FAKE_QUANTIZE_DOMAIN}::{FAKE_QUANTIZE}"
        symbolic: torch.Tensor = torch.onnx.ops.symbolic(
            node, inputs, {"encoding": encoding.value}, dtype=values.dtype, shape=values.shape, version=1
        )
        return symbolic
    return fake_quantize(values, encoding, amax)
