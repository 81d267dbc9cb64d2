"""Hidden states of a decoder-only language model, as FLUX.2 takes them, without transformers' masking and caching machinery.

It builds the causal and padding mask itself and calls the decoder layers' own submodules, which `torch.export` traces with any batch.
Padding tokens are conditions too (the transformer sees all of them), so rows that attend to nothing are as in PyTorch: zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine_builder.repeated_block import RepeatedBlock


class TextEncoder(nn.Module):
    """Prompt tokens to conditions: the hidden states after some layers, side by side.

    Source: diffusers 0.42 `Flux2KleinPipeline._get_qwen3_prompt_embeds`, `Flux2Pipeline._get_mistral_3_small_prompt_embeds`.
    """

    def __init__(self, language_model: Any, layers: Sequence[int]) -> None:
        """Args: a transformers `Qwen3Model` or `MistralModel`; the numbers of layers after which a state is taken, ascending."""
        super().__init__()
        self.embed_tokens = language_model.embed_tokens
        self.rotary_emb = language_model.rotary_emb
        self.layers = nn.ModuleList(map(DecoderLayer, language_model.layers[: max(layers)]))
        # transformers gives the last layer's state after the final norm.
        self.norm = language_model.norm if max(layers) == len(language_model.layers) else None
        self.taken = tuple(layers)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Args: input_ids INT64 [B, T], attention_mask INT64 [B, T]. Returns: prompt_embeds FP32 [B, T, layers × D]."""
        x = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        cos, sin = (table.unsqueeze(2) for table in self.rotary_emb(x, position_ids=positions))
        allowed = (positions[:, None, :] <= positions[:, :, None]) & (attention_mask[:, None, :] != 0)
        mask = torch.zeros_like(allowed, dtype=x.dtype).masked_fill(~allowed, torch.finfo(x.dtype).min / 2).unsqueeze(1)
        attends = allowed.any(dim=-1, keepdim=True).to(x.dtype)
        states = []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, cos, sin, mask, attends)
            if number in self.taken:
                states.append(x if self.norm is None or number < len(self.layers) else _norm(self.norm, x))
        return torch.cat(states, dim=-1).float()


class DecoderLayer(RepeatedBlock):
    """One layer of the language model."""

    unread = frozenset({"layer_idx"})
    """It is of use to caches of keys and values alone."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor, attends: torch.Tensor) -> torch.Tensor:
        """Args: x [B, T, D], cos and sin [1, T, 1, head_dim], mask [B, 1, T, T] to add, attends [B, T, 1] of 0 and 1. Returns: x."""
        attention = _attention(self.layer.self_attn, _norm(self.layer.input_layernorm, x), (cos, sin), mask)
        x = x + self.layer.self_attn.o_proj(attention * attends)
        result: torch.Tensor = x + self.layer.mlp(_norm(self.layer.post_attention_layernorm, x))
        return result


def _attention(attn: Any, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    shape = (-1, attn.head_dim)
    query, key, value = (projection(x).unflatten(-1, shape) for projection in (attn.q_proj, attn.k_proj, attn.v_proj))
    if hasattr(attn, "q_norm"):  # Qwen3 has it, Mistral not.
        query, key = _norm(attn.q_norm, query), _norm(attn.k_norm, key)
    heads, groups = query.shape[2], attn.num_key_value_groups
    rotated = _rotate(torch.cat([query, key], dim=2), *rotary)
    query, key = rotated[:, :, :heads], rotated[:, :, heads:]
    if groups > 1:
        key, value = (tensor.unsqueeze(3).expand(-1, -1, -1, groups, -1).flatten(2, 3) for tensor in (key, value))
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attn.scaling)
    return output.transpose(1, 2).flatten(2)


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply transformers' RMSNorm as one operator: its own eight take most of the time that tracing needs."""
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
