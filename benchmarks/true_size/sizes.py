"""What is built: plain values, which cross from process to process. Imports no torch, for it stays in memory while the stages run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.model_spec import Sampling, Shape
from diffusion_api.optimization import QuantizationFormat
from diffusion_api.recipe import ComponentRecipe
from engine_builder.families.base import Family
from engine_builder.families.registry import family_for

Facts = dict[str, Any]
"""What a stage tells, as JSON values."""
PIECES = {"textEncoder": "text_encoder", "transformer": "transformer", "vae": "vae_decoder"}
"""What is compiled of each component where there is no step cache."""


@dataclass(frozen=True)
class Bench:
    """One build; plain values, for it crosses to other processes."""

    checkpoint: str
    work: str
    """Folder of this build's files."""
    format: str
    """Of every component."""
    side: int = 1024
    """Width and height of the engine's pictures, in pixels."""
    text_tokens: int = 512
    max_batch_size: int = 2
    calibration_side: int = 128
    calibration_text_tokens: int = 64
    calibration_steps: int = 1
    """A processor cannot draw 1024×1024 with 4 billion parameters in minutes; which tokens calibrate changes no time but this."""

    @property
    def folder(self) -> Path:
        """`work`."""
        return Path(self.work)

    @property
    def recipe(self) -> ComponentRecipe:
        """The recipe of every component."""
        return ComponentRecipe(format=QuantizationFormat(self.format))

    @property
    def quantizes(self) -> bool:
        """False for BF16."""
        return self.recipe.format is not QuantizationFormat.NONE

    def quantized(self, component: str) -> Path:
        """Return where a quantized component's scales lie."""
        return self.folder / "quantized" / f"{component}.safetensors"

    def graphs(self, component: str) -> Path:
        """Return the folder of a component's exported graphs."""
        return self.folder / "graphs" / component

    def family(self) -> Family:
        """Return the checkpoint's adapter."""
        return family_for(Path(self.checkpoint))

    def manifest(self) -> EngineManifest:
        """Return the manifest of the engine."""
        sampling = Sampling(max_sequence_length=self.text_tokens)
        return self.family().manifest(Path(self.checkpoint), sampling, [Shape(width=self.side, height=self.side)], self.max_batch_size)


@dataclass(frozen=True)
class ModelSize:
    """The sizes of FLUX.2 klein-4B, as its configurations have them."""

    blocks: int = 5
    """Double-stream blocks."""
    single_blocks: int = 20
    """Single-stream blocks."""
    heads: int = 24
    head_dim: int = 128
    text: Mapping[str, int] = field(
        default_factory=lambda: {
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
        }
    )
    """Qwen3-4B."""
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_latents: int = 32
    vae_layers: int = 2
    vae_groups: int = 32


def bytes_in(folder: Path) -> int:
    """Return the size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
