"""The FLUX.2 transformer in three pieces: what depends on the step, the blocks (which a step cache may leave out), the output.

Borders are FP32 whatever the type of the layers, so a runtime needs no BF16 arrays; inside, tensors take the layers' type. The time
embedding's sinusoid and the rotary tables are computed in FP32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine_builder.families.flux2.attention import RotaryTable, set_batched_attention
from engine_builder.repeated_block import RepeatedBlock

TIMESTEP_SCALE = 1000.0
"""diffusers passes noise levels in [0, 1] and multiplies in the model; guidance likewise."""


class Prelude(nn.Module):
    """Embeds tokens, time and guidance; its `indicator` is the first block's modulated input, as TeaCache wants it.

    Source of the indicator: Liu et al. 2024, arXiv:2411.19108, section 3.3.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.time_guidance_embed = transformer.time_guidance_embed
        self.double_stream_modulation_img = transformer.double_stream_modulation_img
        self.double_stream_modulation_txt = transformer.double_stream_modulation_txt
        self.single_stream_modulation = transformer.single_stream_modulation
        self.x_embedder = transformer.x_embedder
        self.context_embedder = transformer.context_embedder
        self.norm = transformer.transformer_blocks[0].norm1

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        guidance: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Args: latents [B, S, C], conditions [B, T, D], noise level [B] in [0, 1], guidance scale [B].

        Returns: x, ctx, temb, mod_img, mod_txt, mod_single, indicator.
        """
        dtype = self.x_embedder.weight.dtype
        temb = self._embed(timestep, self.time_guidance_embed.timestep_embedder, dtype)
        if guidance is not None:
            temb = temb + self._embed(guidance, self.time_guidance_embed.guidance_embedder, dtype)
        mod_img = self.double_stream_modulation_img(temb)
        x = self.x_embedder(hidden_states.to(dtype))
        ctx = self.context_embedder(encoder_hidden_states.to(dtype))
        shift, scale = mod_img.unsqueeze(1).chunk(6, dim=-1)[:2]
        indicator = (1 + scale) * self.norm(x) + shift
        outputs = (x, ctx, temb, mod_img, self.double_stream_modulation_txt(temb), self.single_stream_modulation(temb), indicator)
        return tuple(output.float() for output in outputs)

    def _embed(self, value: torch.Tensor, embedder: nn.Module, dtype: torch.dtype) -> torch.Tensor:
        sinusoid = self.time_guidance_embed.time_proj(value.float() * TIMESTEP_SCALE)
        embedded: torch.Tensor = embedder(sinusoid.to(dtype))
        return embedded


class Body(nn.Module):
    """All blocks: image tokens in, image tokens out."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        set_batched_attention(transformer)
        self.rotary = RotaryTable(transformer.config.axes_dims_rope, transformer.config.rope_theta)
        self.double_stream = nn.ModuleList(map(DoubleStreamBlock, transformer.transformer_blocks))
        self.single_stream = nn.ModuleList(map(SingleStreamBlock, transformer.single_transformer_blocks))

    def forward(  # noqa: PLR0917 - a graph's inputs have an order.
        self,
        x: torch.Tensor,
        ctx: torch.Tensor,
        mod_img: torch.Tensor,
        mod_txt: torch.Tensor,
        mod_single: torch.Tensor,
        position_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Args: x [B, S, D], ctx [B, T, D], modulations, position_ids FP32 [B, T + S, 4]. Returns: y [B, S, D]."""
        dtype = next(self.single_stream.parameters()).dtype
        text_tokens = ctx.shape[1]
        cos, sin = self.rotary(position_ids)
        x, ctx, mod_img, mod_txt, mod_single = (tensor.to(dtype) for tensor in (x, ctx, mod_img, mod_txt, mod_single))
        for block in self.double_stream:
            ctx, x = block(ctx, x, mod_img, mod_txt, cos, sin)
        joint = torch.cat([ctx, x], dim=1)
        for block in self.single_stream:
            joint = block(joint, mod_single, cos, sin)
        return joint[:, text_tokens:].float()


class DoubleStreamBlock(RepeatedBlock):
    """A block with weights of their own for text and image."""

    outputs = 2

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(  # noqa: PLR0917 - a graph's inputs have an order.
        self, ctx: torch.Tensor, x: torch.Tensor, mod_img: torch.Tensor, mod_txt: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args: ctx [B, T, D], x [B, S, D], modulations [B, 6 D], cos and sin FP32 [B, T + S, head_dim / 2]. Returns: ctx, x."""
        ctx, x = self.block(
            hidden_states=x, encoder_hidden_states=ctx, temb_mod_img=mod_img, temb_mod_txt=mod_txt, image_rotary_emb=(cos, sin)
        )
        return ctx, x


class SingleStreamBlock(RepeatedBlock):
    """A block with the same weights for text and image."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, joint: torch.Tensor, mod_single: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Args: joint [B, T + S, D], modulation [B, 3 D], cos and sin FP32 [B, T + S, head_dim / 2]. Returns: joint."""
        rotary = (cos, sin)
        result: torch.Tensor = self.block(hidden_states=joint, encoder_hidden_states=None, temb_mod=mod_single, image_rotary_emb=rotary)
        return result


class Head(nn.Module):
    """Image tokens to velocity."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.norm_out = transformer.norm_out
        self.proj_out = transformer.proj_out

    def forward(self, y: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """Args: y [B, S, D], temb [B, D]. Returns: sample [B, S, C]."""
        dtype = self.proj_out.weight.dtype
        sample: torch.Tensor = self.proj_out(self.norm_out(y.to(dtype), temb.to(dtype)))
        return sample.float()
