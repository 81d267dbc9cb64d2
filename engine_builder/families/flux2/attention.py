"""Attention of the FLUX.2 blocks with a rotary table per sample.

diffusers applies one table to the whole batch; a served batch may mix 64×32 with 32×64 pictures, which have as many tokens but other
positions. The processors plug into diffusers' own attention modules, so quantization of their layers and ModelOpt's attention plugin
(it replaces `torch.nn.functional.scaled_dot_product_attention` while the module runs) work as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine, FP32 [B, L, head_dim / 2] (as here) or [L, head_dim] with each value twice (as diffusers makes them)."""


class RotaryTable(nn.Module):
    """Position ids FP32 [B, L, axes] to cosine and sine FP32 [B, L, head_dim / 2], whatever the type of the other layers."""

    def __init__(self, axes_dims: Sequence[int], theta: float) -> None:
        super().__init__()
        # Plain attributes, not buffers: `module.to(torch.bfloat16)` must not round the frequencies.
        self.frequencies = [(theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)).float() for dim in axes_dims]

    def forward(self, position_ids: torch.Tensor) -> Rotary:
        """Args: `position_ids` FP32 [B, L, axes]. Returns: cosine and sine FP32 [B, L, head_dim / 2]."""
        ids = position_ids.float()
        angles = torch.cat([ids[..., i : i + 1] * f.to(ids.device) for i, f in enumerate(self.frequencies)], dim=-1)
        return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Turn each pair of channels by its angle, in FP32.

    Args:
        x: [B, L, heads, head_dim], neighbouring channels are a pair.
        rotary: Tables of the batch, or diffusers' tables without a batch axis.

    Returns: as `x`, in its type.

    Source: Su et al. 2021, arXiv:2104.09864, equation 34; interleaved pairs as in diffusers' `apply_rotary_emb`.
    """
    cos, sin = rotary
    if cos.ndim == 2:
        cos, sin = cos[None, :, ::2], sin[None, :, ::2]
    cos, sin = cos[:, :, None], sin[:, :, None]
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).to(x.dtype)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Rotary | None) -> torch.Tensor:
    """Return softmax attention of [B, L, heads, head_dim] tensors as [B, L, heads × head_dim]."""
    if rotary is not None:
        query, key = rotate(query, rotary), rotate(key, rotary)
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class DoubleStreamProcessor:
    """Joint attention of text and image tokens, for diffusers' `Flux2Attention`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return attention outputs of the image stream [B, S, D] and the text stream [B, T, D]."""
        shape = (-1, attn.head_dim)
        text_query = attn.norm_added_q(attn.add_q_proj(encoder_hidden_states).unflatten(-1, shape))
        text_key = attn.norm_added_k(attn.add_k_proj(encoder_hidden_states).unflatten(-1, shape))
        text_value = attn.add_v_proj(encoder_hidden_states).unflatten(-1, shape)
        query = torch.cat([text_query, attn.norm_q(attn.to_q(hidden_states).unflatten(-1, shape))], dim=1)
        key = torch.cat([text_key, attn.norm_k(attn.to_k(hidden_states).unflatten(-1, shape))], dim=1)
        value = torch.cat([text_value, attn.to_v(hidden_states).unflatten(-1, shape)], dim=1)
        joint = attend(query, key, value, image_rotary_emb)
        text_tokens = encoder_hidden_states.shape[1]
        return attn.to_out[1](attn.to_out[0](joint[:, text_tokens:])), attn.to_add_out(joint[:, :text_tokens])


class SingleStreamProcessor:
    """Attention beside the feed-forward layer, for diffusers' `Flux2ParallelSelfAttention`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> torch.Tensor:
        """Return [B, T + S, D]."""
        shape = (-1, attn.head_dim)
        fused = attn.to_qkv_mlp_proj(hidden_states)
        query, key, value, mlp = fused.split([attn.inner_dim] * 3 + [attn.mlp_hidden_dim * attn.mlp_mult_factor], dim=-1)
        query, key = attn.norm_q(query.unflatten(-1, shape)), attn.norm_k(key.unflatten(-1, shape))
        attention = attend(query, key, value.unflatten(-1, shape), image_rotary_emb)
        output: torch.Tensor = attn.to_out(torch.cat([attention, attn.mlp_act_fn(mlp)], dim=-1))
        return output


def set_batched_attention(transformer: Any) -> None:
    """Give every block of a `Flux2Transformer2DModel` these processors; the model's own `forward` stays correct."""
    for block in transformer.transformer_blocks:
        block.attn.set_processor(DoubleStreamProcessor())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(SingleStreamProcessor())
