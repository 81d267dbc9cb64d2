"""What a family adapter gives the builder: the one place that knows an architecture.

Adding a model is one new module here that registers a `Family`, and one test module. Everything else (quantize, calibrate, export,
compile, verify, serve) works on `GraphModule`s and the `EngineManifest` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffusion_api.engine_manifest import EngineManifest, TensorSpec
from diffusion_api.model_spec import Sampling, Shape

if TYPE_CHECKING:  # A plan is made without torch; only `load`, `graphs` and `constants` need it.
    import torch
    from torch import nn


@dataclass(frozen=True)
class GraphModule:
    """A piece of the model as an exportable module: `forward` takes its inputs in order and returns its outputs in order.

    Every input and output has a leading batch axis. Axes named by a word in `TensorSpec.dims` are dynamic in the exported graph;
    equal words are equal axes.
    """

    name: str
    """Piece name, for example `transformer_body`."""
    component: str
    """Component it belongs to, in camelCase as in the API: `transformer`, `textEncoder`, `vae`."""
    module: nn.Module
    """Shares its submodules with the component, so quantizing the component quantizes the piece."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory."""

    family: str
    components: Mapping[str, nn.Module]
    """By camelCase name: `transformer`, `textEncoder`, `vae`."""
    config: Mapping[str, Any]
    """What the family read from the checkpoint and needs again (for example `is_distilled`); JSON values only."""
    folder: Path
    """The diffusers folder."""


class Family(Protocol):
    """One architecture."""

    name: str
    """For example `flux2-klein`."""
    components: tuple[str, ...]
    """Components that have pieces, in camelCase, in the order they run: `textEncoder`, `transformer`, `vae`."""

    def matches(self, model_index: Mapping[str, Any]) -> bool:
        """Tell by `model_index.json` whether a checkpoint is of this family."""

    def check(self, folder: Path, sampling: Sampling, shapes: Sequence[Shape]) -> None:
        """Check components, tensor files (headers against sizes) and shapes without loading weights.

        Raises:
            InvalidModelError: a component or tensor is missing or truncated; the message names it.
            InvalidJobError: a shape or sampling setting that this architecture cannot take.
        """

    def load(self, folder: Path, dtype: torch.dtype, student: Path | None = None) -> LoadedModel:
        """Load every component in `eval()` mode on the CPU; `student` is a safetensors file laid over the transformer."""

    def graphs(self, model: LoadedModel) -> tuple[GraphModule, ...]:
        """Return the pieces: `text_encoder`, `transformer_prelude`, `transformer_body`, `transformer_head`, decoders."""

    def manifest(self, folder: Path, sampling: Sampling, shapes: Sequence[Shape], max_batch_size: int) -> EngineManifest:
        """Return the manifest with `pieces` empty: sigmas, latents, guidance, prompt template, decoders."""

    def constants(self, manifest: EngineManifest) -> Mapping[str, torch.Tensor]:
        """Return the tensors that `ShapePlan.constants` names, without batch axis (for example position ids)."""

    def sensitive_layers(self, component: str) -> tuple[str, ...]:
        """Return globs of module names that keep high precision, for example `*norm*`."""

    def prompts(self, folder: Path) -> tuple[str, ...]:
        """Return the built-in calibration prompts; a checkpoint may bring its own in `calibration_prompts.txt`."""
