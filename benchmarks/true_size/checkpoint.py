"""A diffusers folder of any size with random weights, written tensor by tensor: nothing of it is ever in memory as a whole."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import IO, Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.true_size.sizes import Facts, ModelSize, bytes_in

DIGITS = Path(__file__).parents[2] / "examples/digits/digits-klein"
"""Lends its tokenizer, scheduler and index; none of them depends on the size."""
MAX_PROMPT_TOKENS = 512
_POOL = 1 << 22


def write_checkpoint(size: ModelSize, folder: Path) -> Path:
    """Write a checkpoint in BF16; one that is complete already is kept.

    Args:
        size: Sizes of the components.
        folder: Gets a folder named after the number of blocks.
    """
    target = folder / f"klein-{size.blocks}-{size.single_blocks}-{size.heads * size.head_dim}"
    if target.exists():
        return target
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(DIGITS / name, partial / name)
    shutil.copy(DIGITS / "model_index.json", partial)
    with torch.device("meta"):
        transformer, text_encoder, vae = _transformer(size), _text_encoder(size), _vae(size)
    transformer.save_config(partial / "transformer")
    text_encoder.config.save_pretrained(partial / "text_encoder")
    vae.save_config(partial / "vae")
    _write_weights(transformer, partial / "transformer/diffusion_pytorch_model.safetensors")
    _write_weights(text_encoder, partial / "text_encoder/model.safetensors", tied=("lm_head.weight",))
    _write_weights(vae, partial / "vae/diffusion_pytorch_model.safetensors")
    return partial.rename(target)


def write_model(folder: str, size: dict[str, Any]) -> Facts:
    """Write the random checkpoint, where there is none yet."""
    target = write_checkpoint(ModelSize(**size), Path(folder))
    return {"checkpoint": str(target), "bytes": bytes_in(target)}


def _transformer(size: ModelSize) -> Any:
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4 * size.vae_latents,
        num_layers=size.blocks,
        num_single_layers=size.single_blocks,
        attention_head_dim=size.head_dim,
        num_attention_heads=size.heads,
        joint_attention_dim=3 * size.text["hidden_size"],
        axes_dims_rope=[size.head_dim // 4] * 4,
        guidance_embeds=False,
    )


def _text_encoder(size: ModelSize) -> Any:
    config = Qwen3Config(**size.text, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    config.architectures = ["Qwen3ForCausalLM"]
    return Qwen3ForCausalLM(config)


def _vae(size: ModelSize) -> Any:
    return AutoencoderKLFlux2(
        block_out_channels=size.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * len(size.vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(size.vae_channels),
        latent_channels=size.vae_latents,
        layers_per_block=size.vae_layers,
        norm_num_groups=size.vae_groups,
    )


def _write_weights(module: nn.Module, path: Path, tied: tuple[str, ...] = ()) -> None:
    """Source: https://github.com/huggingface/safetensors, section Format; its own writer wants all tensors in memory."""
    tensors = {name: tensor for name, tensor in module.state_dict().items() if name not in tied}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        wide = not tensor.is_floating_point()
        length = tensor.numel() * (8 if wide else 2)
        header[name] = {"dtype": "I64" if wide else "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(0)).repeat(2)
    places = random.Random(0)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            _write_tensor(file, name, tensor, pool, places)


def _write_tensor(file: IO[bytes], name: str, tensor: torch.Tensor, pool: torch.Tensor, places: random.Random) -> None:
    """Write random numbers of a size that keeps activations near 1: four million, from another place on each time.

    No two tensors may be equal: TensorRT keeps equal ones once.
    """
    count = tensor.numel()
    if not tensor.is_floating_point():
        file.write(bytes(8 * count))
        return
    if tensor.ndim < 2:
        one = name.endswith(("weight", "running_var"))
        file.write(_bytes(torch.full((count,), float(one))))
        return
    block = memoryview(_bytes(pool / math.sqrt(tensor[0].numel())))
    for start in range(0, count, _POOL):
        place = places.randrange(_POOL)
        file.write(block[2 * place : 2 * (place + min(_POOL, count - start))])


def _bytes(values: torch.Tensor) -> bytes:
    return values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
