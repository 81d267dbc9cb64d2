"""The element types of pieces' borders as torch's; apart from `base`, which a plan imports without torch."""

from __future__ import annotations

import torch

from diffusion_api.engine_manifest import Dtype

TORCH_DTYPES = {
    Dtype.FP32: torch.float32,
    Dtype.FP16: torch.float16,
    Dtype.BF16: torch.bfloat16,
    Dtype.INT64: torch.int64,
    Dtype.INT32: torch.int32,
    Dtype.UINT8: torch.uint8,
}
