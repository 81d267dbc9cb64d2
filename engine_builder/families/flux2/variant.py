"""What differs between FLUX.2 klein and FLUX.2 dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine_builder.families.chat_template import PROMPT_MARK

# Source: diffusers 0.42 `pipelines/flux2/system_messages.py`, SYSTEM_MESSAGE; the line break is part of it.
_SYSTEM_MESSAGE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object relationships, object\n"
    "attribution and actions without speculation."
)


@dataclass(frozen=True)
class Flux2Variant:
    """One of the two pipelines."""

    name: str
    """Family name."""
    pipeline: str
    """`_class_name` of `model_index.json`."""
    text_encoder: str
    """The text encoder's class."""
    text_layers: tuple[int, ...]
    """Layers whose hidden states are the conditions."""
    text_config_key: str | None
    """Where `text_encoder/config.json` nests the language model's settings."""
    tensor_prefixes: tuple[str, ...]
    """What the language model's tensor names may begin with in the checkpoint."""
    tokenizers: tuple[str, ...]
    """Classes of the tokenizer."""
    messages: Sequence[Mapping[str, Any]]
    """The conversation around a prompt."""
    template_arguments: Mapping[str, object]
    """Arguments of the chat template."""


# Source: diffusers 0.42 `Flux2KleinPipeline._get_qwen3_prompt_embeds`.
KLEIN = Flux2Variant(
    name="flux2-klein",
    pipeline="Flux2KleinPipeline",
    text_encoder="Qwen3ForCausalLM",
    text_layers=(9, 18, 27),
    text_config_key=None,
    tensor_prefixes=("model.",),
    tokenizers=("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    messages=({"role": "user", "content": PROMPT_MARK},),
    template_arguments={"add_generation_prompt": True, "enable_thinking": False},
)

# Source: diffusers 0.42 `Flux2Pipeline._get_mistral_3_small_prompt_embeds` and `format_input`.
DEV = Flux2Variant(
    name="flux2-dev",
    pipeline="Flux2Pipeline",
    text_encoder="Mistral3ForConditionalGeneration",
    text_layers=(10, 20, 30),
    text_config_key="text_config",
    # transformers' own names, and those written before its version 4.52.
    tensor_prefixes=("model.language_model.", "language_model.model."),
    tokenizers=("PixtralProcessor", "AutoProcessor"),
    messages=(
        {"role": "system", "content": ({"type": "text", "text": _SYSTEM_MESSAGE},)},
        {"role": "user", "content": ({"type": "text", "text": PROMPT_MARK},)},
    ),
    template_arguments={"add_generation_prompt": False},
)
