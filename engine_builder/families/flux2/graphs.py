"""The pieces of FLUX.2 with the specifications of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion_api.engine_manifest import Dtype, EngineManifest, TensorSpec
from engine_builder.families.base import GraphModule
from engine_builder.families.flux2.text_encoder import TextEncoder
from engine_builder.families.flux2.transformer import Body, Head, Prelude
from engine_builder.families.flux2.vae_decoder import VaeDecoder

Axes = tuple[int | str, ...]


def graph_modules(components: Mapping[str, Any], text_layers: Sequence[int]) -> tuple[GraphModule, ...]:
    """Return the pieces; they share their submodules with the components."""
    transformer = components["transformer"]
    return (
        _text_encoder(components["textEncoder"], text_layers),
        _prelude(transformer),
        _body(transformer),
        GraphModule(
            name="transformer_head",
            component="transformer",
            module=Head(transformer).eval(),
            inputs=_specs(y=("image_tokens", transformer.inner_dim), temb=(transformer.inner_dim,)),
            outputs=_specs(sample=("image_tokens", transformer.out_channels)),
        ),
        _vae_decoder(components["vae"]),
    )


def position_ids(manifest: EngineManifest) -> dict[str, torch.Tensor]:
    """Return the position ids of every shape, FP32 [T + S, 4]: text tokens first, then image tokens by rows.

    The axes are time, height, width and index in the text.

    Source: diffusers 0.42 `Flux2KleinPipeline._prepare_text_ids`, `_prepare_latent_ids`.
    """
    tables = {}
    for plan in manifest.shapes:
        zero = torch.arange(1)
        text = torch.cartesian_prod(zero, zero, zero, torch.arange(plan.dims["text_tokens"]))
        rows, columns = torch.arange(plan.dims["latent_height"]), torch.arange(plan.dims["latent_width"])
        tables[plan.constants["position_ids"]] = torch.cat([text, torch.cartesian_prod(zero, rows, columns, zero)]).float()
    return tables


def _text_encoder(component: Any, layers: Sequence[int]) -> GraphModule:
    inner = component.model
    language_model = getattr(inner, "language_model", inner)  # Mistral3 has a vision tower beside it.
    return GraphModule(
        name="text_encoder",
        component="textEncoder",
        module=TextEncoder(language_model, layers).eval(),
        inputs=_specs(Dtype.INT64, input_ids=("text_tokens",), attention_mask=("text_tokens",)),
        outputs=_specs(prompt_embeds=("text_tokens", len(layers) * language_model.config.hidden_size)),
    )


def _prelude(transformer: Any) -> GraphModule:
    dim = transformer.inner_dim
    guidance: dict[str, Axes] = {"guidance": ()} if transformer.config.guidance_embeds else {}
    return GraphModule(
        name="transformer_prelude",
        component="transformer",
        module=Prelude(transformer).eval(),
        inputs=_specs(
            hidden_states=("image_tokens", transformer.config.in_channels),
            encoder_hidden_states=("text_tokens", transformer.config.joint_attention_dim),
            timestep=(),
            **guidance,
        ),
        outputs=_specs(
            x=("image_tokens", dim),
            ctx=("text_tokens", dim),
            temb=(dim,),
            mod_img=(6 * dim,),
            mod_txt=(6 * dim,),
            mod_single=(3 * dim,),
            indicator=("image_tokens", dim),
        ),
    )


def _body(transformer: Any) -> GraphModule:
    dim = transformer.inner_dim
    return GraphModule(
        name="transformer_body",
        component="transformer",
        module=Body(transformer).eval(),
        inputs=_specs(
            x=("image_tokens", dim),
            ctx=("text_tokens", dim),
            mod_img=(6 * dim,),
            mod_txt=(6 * dim,),
            mod_single=(3 * dim,),
            position_ids=("tokens", len(transformer.config.axes_dims_rope)),
        ),
        outputs=_specs(y=("image_tokens", dim)),
    )


def _vae_decoder(vae: Any) -> GraphModule:
    channels = vae.config.latent_channels * vae.config.patch_size[0] * vae.config.patch_size[1]
    return GraphModule(
        name="vae_decoder",
        component="vae",
        module=VaeDecoder(vae).eval(),
        inputs=_specs(latents=("latent_height", "latent_width", channels)),
        outputs=_specs(Dtype.UINT8, image=("height", "width", 3)),
    )


def _specs(dtype: Dtype = Dtype.FP32, /, **axes: Axes) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, dtype=dtype, dims=dims) for name, dims in axes.items())
