"""Reads and checks a FLUX.2 checkpoint by its JSON files and tensor headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine_builder.errors import InvalidModelError
from engine_builder.families.chat_template import TokenizerFolder
from engine_builder.families.diffusers_folder import (
    TensorHeader,
    check_components,
    check_tensors,
    model_index,
    read_json,
    tensor_headers,
)
from engine_builder.families.flow_schedule import SCHEDULER, check_scheduler
from engine_builder.families.flux2.variant import Flux2Variant

POSITION_AXES = 4
"""Time, height, width and index in the text."""


Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Config(BaseModel):
    """A `config.json`, of which the rest is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


_ConfigT = TypeVar("_ConfigT", bound=_Config)


class TransformerConfig(_Config):
    """`transformer/config.json`; the defaults are diffusers' own."""

    patch_size: Literal[1] = 1
    in_channels: Count = 128
    out_channels: Count | None = None
    num_layers: Annotated[int, Field(ge=1, le=1000)] = 8
    num_single_layers: Annotated[int, Field(ge=1, le=1000)] = 48
    attention_head_dim: Count = 128
    num_attention_heads: Count = 48
    joint_attention_dim: Count = 15360
    timestep_guidance_channels: Count = 256
    mlp_ratio: float = 3.0
    axes_dims_rope: tuple[int, ...] = (32, 32, 32, 32)
    guidance_embeds: bool = True

    @property
    def hidden_size(self) -> int:
        """Width of a token."""
        return self.attention_head_dim * self.num_attention_heads


class TextConfig(_Config):
    """The language model's part of `text_encoder/config.json`."""

    hidden_size: Count
    num_hidden_layers: Annotated[int, Field(ge=1, le=1000)]
    vocab_size: Count
    max_position_embeddings: Count
    use_sliding_window: bool = True
    sliding_window: Count | None = None


class VaeConfig(_Config):
    """`vae/config.json`."""

    block_out_channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=10)]
    latent_channels: Count
    patch_size: tuple[Literal[2], Literal[2]] = (2, 2)


@dataclass(frozen=True)
class Flux2Checkpoint:
    """What a plan needs to know of a checkpoint."""

    is_distilled: bool
    """True for a few-step student, which takes no guidance."""
    transformer: TransformerConfig
    text: TextConfig
    vae: VaeConfig
    scheduler: Mapping[str, Any]
    """`scheduler/scheduler_config.json`."""
    tokenizer: TokenizerFolder

    @property
    def pixels_per_token(self) -> int:
        """Width and height of a token in pixels: the VAE halves between its blocks, and packing halves once more."""
        halvings = len(self.vae.block_out_channels)
        return 1 << halvings


def read_checkpoint(folder: Path, variant: Flux2Variant) -> Flux2Checkpoint:
    """Read the JSON files of a checkpoint.

    Raises:
        InvalidModelError: A component or file is missing, of another class, or at odds with the others; names it.
    """
    index = model_index(folder)
    check_components(index, folder, _component_classes(variant))
    text = read_json(folder / "text_encoder" / "config.json")
    if variant.text_config_key is not None:
        text = text.get(variant.text_config_key, {})
    checkpoint = Flux2Checkpoint(
        is_distilled=bool(index.get("is_distilled", False)),
        transformer=_parsed(TransformerConfig, "transformer", read_json(folder / "transformer" / "config.json")),
        text=_parsed(TextConfig, "text_encoder", text),
        vae=_parsed(VaeConfig, "vae", read_json(folder / "vae" / "config.json")),
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
        tokenizer=TokenizerFolder(folder / "tokenizer"),
    )
    check_scheduler(checkpoint.scheduler)
    _check_sizes(checkpoint, variant)
    return checkpoint


def check_weights(folder: Path, checkpoint: Flux2Checkpoint, variant: Flux2Variant) -> None:
    """Compare the headers of the weights with what the configurations promise.

    Raises:
        InvalidModelError: A tensor is missing, misshapen or in an unknown format, or a file is truncated; names it.
    """
    config = checkpoint.transformer
    check_tensors("transformer", tensor_headers(folder / "transformer", "diffusion_pytorch_model"), transformer_tensors(config))
    text = tensor_headers(folder / "text_encoder", "model")
    check_tensors("text_encoder", text, _text_tensors(checkpoint, variant, text))
    vae = tensor_headers(folder / "vae", "diffusion_pytorch_model")
    check_tensors("vae", vae, _vae_tensors(checkpoint))


def transformer_tensors(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of a `Flux2Transformer2DModel`.

    Source: diffusers 0.42 `models/transformers/transformer_flux2.py`.
    """
    dim, head, channels = config.hidden_size, config.attention_head_dim, config.timestep_guidance_channels
    mlp = int(dim * config.mlp_ratio)
    tensors: dict[str, tuple[int, ...]] = {
        "x_embedder": (dim, config.in_channels),
        "context_embedder": (dim, config.joint_attention_dim),
        "double_stream_modulation_img.linear": (6 * dim, dim),
        "double_stream_modulation_txt.linear": (6 * dim, dim),
        "single_stream_modulation.linear": (3 * dim, dim),
        "norm_out.linear": (2 * dim, dim),
        "proj_out": (config.in_channels, dim),
    }
    for embedder in ("timestep_embedder", "guidance_embedder")[: 1 + config.guidance_embeds]:
        tensors[f"time_guidance_embed.{embedder}.linear_1"] = (dim, channels)
        tensors[f"time_guidance_embed.{embedder}.linear_2"] = (dim, dim)
    projections = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    for i in range(config.num_layers):
        block = f"transformer_blocks.{i}"
        tensors |= {f"{block}.attn.{name}": (dim, dim) for name in projections}
        tensors |= {f"{block}.attn.norm_{name}": (head,) for name in ("q", "k", "added_q", "added_k")}
        for ff in ("ff", "ff_context"):
            tensors |= {f"{block}.{ff}.linear_in": (2 * mlp, dim), f"{block}.{ff}.linear_out": (dim, mlp)}
    for i in range(config.num_single_layers):
        attn = f"single_transformer_blocks.{i}.attn"
        tensors |= {f"{attn}.to_qkv_mlp_proj": (3 * dim + 2 * mlp, dim), f"{attn}.to_out": (dim, dim + mlp)}
        tensors |= {f"{attn}.norm_q": (head,), f"{attn}.norm_k": (head,)}
    return {f"{name}.weight": shape for name, shape in tensors.items()}


def _component_classes(variant: Flux2Variant) -> dict[str, tuple[str, ...]]:
    return {
        "scheduler": (SCHEDULER,),
        "text_encoder": (variant.text_encoder,),
        "tokenizer": variant.tokenizers,
        "transformer": ("Flux2Transformer2DModel",),
        "vae": ("AutoencoderKLFlux2",),
    }


def _parsed(model: type[_ConfigT], component: str, raw: Mapping[str, Any]) -> _ConfigT:
    try:
        return model.model_validate({name: value for name, value in raw.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise InvalidModelError(f"{component}/config.json: {problems}") from None


def _check_sizes(checkpoint: Flux2Checkpoint, variant: Flux2Variant) -> None:
    config, text, vae = checkpoint.transformer, checkpoint.text, checkpoint.vae
    axes = config.axes_dims_rope
    if len(axes) != POSITION_AXES or sum(axes) != config.attention_head_dim or any(dim % 2 for dim in axes):
        raise InvalidModelError(
            f"transformer: axes_dims_rope {list(axes)} must be {POSITION_AXES} even numbers that sum to "
            f"attention_head_dim {config.attention_head_dim}"
        )
    if config.out_channels not in (None, config.in_channels):
        raise InvalidModelError(f"transformer: out_channels {config.out_channels} must equal in_channels {config.in_channels}")
    if config.in_channels != 4 * vae.latent_channels:
        raise InvalidModelError(
            f"transformer: in_channels {config.in_channels} must be four times the vae's latent_channels {vae.latent_channels}"
        )
    if config.joint_attention_dim != len(variant.text_layers) * text.hidden_size:
        raise InvalidModelError(
            f"transformer: joint_attention_dim {config.joint_attention_dim} must be {len(variant.text_layers)} times "
            f"the text encoder's hidden_size {text.hidden_size}"
        )
    if text.num_hidden_layers < max(variant.text_layers):
        raise InvalidModelError(
            f"text_encoder: {text.num_hidden_layers} layers, but the conditions come from layer {max(variant.text_layers)}"
        )


def _text_tensors(
    checkpoint: Flux2Checkpoint, variant: Flux2Variant, headers: Mapping[str, TensorHeader]
) -> dict[str, tuple[int, ...] | None]:
    embedding = "embed_tokens.weight"
    prefix = next((p for p in variant.tensor_prefixes if p + embedding in headers), variant.tensor_prefixes[0])
    hidden = checkpoint.text.hidden_size
    expected: dict[str, tuple[int, ...] | None] = {prefix + embedding: (checkpoint.text.vocab_size, hidden)}
    for i in range(max(variant.text_layers)):
        layer = f"{prefix}layers.{i}"
        expected[f"{layer}.input_layernorm.weight"] = (hidden,)
        expected[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        expected |= {f"{layer}.self_attn.{name}_proj.weight": None for name in "qkvo"}
        expected |= {f"{layer}.mlp.{name}_proj.weight": None for name in ("gate", "up", "down")}
    return expected


def _vae_tensors(checkpoint: Flux2Checkpoint) -> dict[str, tuple[int, ...] | None]:
    channels = (checkpoint.transformer.in_channels,)
    return {
        "bn.running_mean": channels,
        "bn.running_var": channels,
        "decoder.conv_in.weight": None,
        "decoder.conv_norm_out.weight": None,
        "decoder.conv_out.weight": None,
    }
