"""The untrained model: every part of a FLUX.2 klein pipeline, a hundred times narrower."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

from examples.digits.vocabulary import PICTURE_SIZE, TEMPLATES, all_digits, prompt_for

IMAGE_TOKENS, TOKEN_CHANNELS = 16, 16
TEXT_WIDTH = 32
TEXT_LAYERS = 27
"""The pipeline joins the hidden states of layers 9, 18 and 27."""
EMBEDDING_GAIN = 50
"""The usual deviation of 0.02 leaves all prompts almost alike in a text encoder that is never trained."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def new_tokenizer() -> Qwen2TokenizerFast:
    """Train a byte-level BPE on the prompts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prompts = [prompt_for(digit, template) for template in TEMPLATES for digit in all_digits()]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(prompts * 5 + ["user\n", "assistant\n"] * 200, trainer)
    model = json.loads(bpe.to_str())["model"]
    vocabulary = dict(model["vocab"])
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    for special in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        vocabulary[special] = len(vocabulary)
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=merges, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_pipeline(*, head_dim: int = 32, heads: int = 4, double_blocks: int = 2, single_blocks: int = 2) -> Flux2KleinPipeline:
    """Return a pipeline with random weights; the text encoder keeps them for ever."""
    tokenizer = new_tokenizer()
    text_encoder = _new_text_encoder(len(tokenizer))
    vae = AutoencoderKLFlux2(
        sample_size=PICTURE_SIZE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        block_out_channels=(16, 16, 32, 32),
        latent_channels=TOKEN_CHANNELS // 4,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=TOKEN_CHANNELS,
        num_layers=double_blocks,
        num_single_layers=single_blocks,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=3 * TEXT_WIDTH,
        timestep_guidance_channels=256,
        axes_dims_rope=[head_dim // 4] * 4,
        guidance_embeds=False,
    )
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=False,
    )


def save(pipeline: Flux2KleinPipeline, folder: Path, *, distilled: bool, dtype: torch.dtype = torch.float16) -> None:
    """Write a pipeline in `dtype`; the one in memory keeps its own."""
    pipeline.register_to_config(is_distilled=distilled)
    components: dict[str, Any] = dict(pipeline.components)
    for name, component in components.items():
        if isinstance(component, torch.nn.Module):
            components[name] = copy.deepcopy(component).to(dtype)
    Flux2KleinPipeline(**components, is_distilled=distilled).save_pretrained(folder)


def _new_text_encoder(vocabulary_size: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=vocabulary_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    encoder = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        encoder.model.embed_tokens.weight.mul_(EMBEDDING_GAIN)
    return encoder
