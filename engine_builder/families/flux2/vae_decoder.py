"""Packed, normalised latents to 8-bit pictures: all that a served decoder needs, in one graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class VaeDecoder(nn.Module):
    """Undo the latents' normalisation and the 2×2 packing, decode, and round to 8 bit as diffusers' `VaeImageProcessor` does.

    Source: diffusers 0.42 `Flux2KleinPipeline.__call__`, last part, and `VaeImageProcessor.postprocess`.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.bn = vae.bn
        self.eps: float = vae.config.batch_norm_eps
        self.patch: tuple[int, int] = tuple(vae.config.patch_size)
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Args: latents FP32 [B, h, w, C], packed and normalised. Returns: image UINT8 [B, H, W, 3]."""
        std = torch.sqrt(self.bn.running_var.float() + self.eps)
        z = (latents.float() * std + self.bn.running_mean.float()).permute(0, 3, 1, 2)
        z = z.unflatten(1, (-1, *self.patch)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        z = z.to(next(self.decoder.parameters()).dtype)
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        image: torch.Tensor = self.decoder(z).float()
        image = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (image * 255).round().to(torch.uint8)
