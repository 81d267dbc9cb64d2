"""A checkpoint in torch behind the very loop that serves: what the reference, the calibration and the search draw with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.recipe import ComponentRecipe, StepCachePlan
from engine_builder.evaluation.reference import draw
from engine_builder.evaluation.samples import Sample
from engine_builder.evaluation.torch_runner import torch_runners
from engine_builder.families.base import Family, GraphModule, LoadedModel
from engine_builder.quantization import QuantizationSummary, quantize, restore_quantized, save_quantized
from engine_runtime.generation import Engine
from engine_runtime.pieces import PieceRunner
from engine_runtime.tokenizer import PromptTokenizer

BATCH_SIZE = 16
"""Of the reference and of every candidate: a batch's size may change its arithmetic."""


@dataclass(frozen=True)
class Simulation:
    """A loaded model that generates in torch."""

    family: Family
    model: LoadedModel
    manifest: EngineManifest

    @cached_property
    def graphs(self) -> tuple[GraphModule, ...]:
        """The pieces."""
        return self.family.graphs(self.model)

    @cached_property
    def constants(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """What the shapes' constants name, on the host."""
        return {name: tensor.numpy() for name, tensor in self.family.constants(self.manifest).items()}

    def engine(
        self,
        step_cache: StepCachePlan | None = None,
        *,
        wrap: Callable[[Mapping[str, PieceRunner]], Mapping[str, PieceRunner]] | None = None,
    ) -> Engine:
        """Return the model as an engine, without a step cache where none is given; `wrap` may put something around the runners."""
        manifest = self.manifest if step_cache is None else self.manifest.model_copy(update={"step_cache": step_cache})
        tokenizer = PromptTokenizer(tokenizer_file(self.model.folder), manifest.text)
        runners: Mapping[str, PieceRunner] = torch_runners(self.graphs)
        if wrap is not None:
            runners = wrap(runners)
        return Engine(manifest, runners, self.constants, tokenizer, max_batch_size=2 * BATCH_SIZE)

    def quantize(self, components: Mapping[str, ComponentRecipe], samples: Sequence[Sample]) -> dict[str, QuantizationSummary]:
        """Quantize components in place, calibrated on the model's own trajectories for `samples`, with its own sigmas."""
        engine = self.engine()

        def calibrate(_: torch.nn.Module) -> None:
            draw(engine, samples, batch_size=BATCH_SIZE)

        return {
            name: quantize(self.model.components[name], recipe, calibrate=calibrate, exclude=self.family.sensitive_layers(name))
            for name, recipe in components.items()
        }

    def save(self, components: Mapping[str, ComponentRecipe], folder: Path) -> None:
        """Keep what `quantize` changed."""
        for name, recipe in components.items():
            save_quantized(self.model.components[name], recipe, folder / f"{name}.safetensors")

    def restore(self, components: Mapping[str, ComponentRecipe], folder: Path) -> None:
        """Quantize components in place as `save` found them."""
        for name in components:
            restore_quantized(self.model.components[name], folder / f"{name}.safetensors")


def tokenizer_file(folder: Path) -> Path:
    """Return where a diffusers folder keeps the tokenizer that serving needs."""
    return folder / "tokenizer" / "tokenizer.json"


def load_simulation(family: Family, folder: Path, manifest: EngineManifest, student: Path | None) -> Simulation:
    """Load a checkpoint in FP32 on the CPU: the numbers that every recipe is measured against."""
    return Simulation(family, family.load(folder, torch.float32, student), manifest)
