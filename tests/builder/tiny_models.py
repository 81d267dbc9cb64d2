"""Tiny random checkpoints in diffusers' layout, built in a second without the network.

Their configurations are our own choice; only the classes, the layer counts that the pipelines fix (27 and 30) and the file names are
those of the real models.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEXT_WIDTH = 16
CHANNELS = 8

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}[SYS]{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "[/SYS]{% else %}[INST]{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}[IMG]{% endif %}{% endfor %}"
    "[/INST]{% endif %}{% endfor %}"
)


def flux2_klein(folder: Path, *, distilled: bool = True, dynamic_shifting: bool = False) -> Path:
    """Save a FLUX.2 klein pipeline: two VAE blocks (4 pixels a token), grouped-query attention, thinking switched off by template."""
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer()
    text = Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=TEXT_WIDTH,
            intermediate_size=24,
            num_hidden_layers=28,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
        )
    )
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic_shifting),
        vae=_vae(),
        text_encoder=_lively(text),
        tokenizer=tokenizer,
        transformer=_transformer(guidance_embeds=False),
        is_distilled=distilled,
    )
    pipeline.save_pretrained(folder)
    return folder


def flux2_dev(folder: Path) -> Path:
    """Save a FLUX.2 dev pipeline: embedded guidance, prompts padded on the left, a beginning-of-text token from the tokenizer."""
    torch.manual_seed(0)
    tokenizer = _mistral_tokenizer()
    processor = PixtralProcessor(image_processor=PixtralImageProcessor(), tokenizer=tokenizer, patch_size=6, chat_template=INSTRUCT)
    language = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 30,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "sliding_window": None,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 30,
        "patch_size": 6,
        "num_channels": 3,
    }
    text = Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=language, vision_config=vision, image_token_index=1, vision_feature_layer=-1)
    )
    pipeline = Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(),
        text_encoder=_lively(text),
        tokenizer=processor,
        transformer=_transformer(guidance_embeds=True),
    )
    pipeline.save_pretrained(folder)
    return folder


def _transformer(*, guidance_embeds: bool) -> Flux2Transformer2DModel:
    transformer = Flux2Transformer2DModel(
        in_channels=CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(2, 6, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return transformer.eval()


def _vae() -> AutoencoderKLFlux2:
    vae = AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=CHANNELS // 4,
        norm_num_groups=4,
    )
    with torch.no_grad():
        vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, CHANNELS))
        vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, CHANNELS))
    return vae.eval()


def _lively(model: torch.nn.Module) -> torch.nn.Module:
    """Enlarge the embeddings; with the default spread of 0.02 all prompts look alike."""
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(50)
    return model.eval()


def _byte_vocabulary(special: tuple[str, ...]) -> dict[str, int]:
    return {token: number for number, token in enumerate((*special, *sorted(pre_tokenizers.ByteLevel.alphabet())))}


def _qwen_tokenizer() -> Qwen2TokenizerFast:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = Qwen2TokenizerFast(vocab=_byte_vocabulary(special), merges=[], additional_special_tokens=list(special[1:]))
    tokenizer.chat_template = CHATML
    return tokenizer


def _mistral_tokenizer() -> PreTrainedTokenizerFast:
    special = ("<unk>", "[IMG]", "<s>", "</s>", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", "[SYS]", "[/SYS]")
    tokenizer = Tokenizer(models.BPE(vocab=_byte_vocabulary(special), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", special.index("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", "[SYS]", "[/SYS]"],
        padding_side="left",
        model_max_length=1024,
    )
