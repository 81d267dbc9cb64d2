"""A checkpoint in torch behind the very loop that serves: what the reference, the calibration and the search draw with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.recipe import ComponentRecipe, StepCachePlan
from engine_builder.evaluation.reference import draw
from engine_builder.evaluation.samples import Sample, over_sizes
from engine_builder.evaluation.torch_runner import torch_runners
from engine_builder.families.base import Family, GraphModule, LoadedModel
from engine_builder.quiet_imports import quiet_imports
from engine_builder.workflow.placement import Placement
from engine_runtime.generation import Engine
from engine_runtime.pieces import PieceRunner
from engine_runtime.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    from engine_builder.quantization import QuantizationSummary  # ModelOpt takes seconds to import; only who quantizes needs it.

BATCH_SIZE = 16
"""Of the reference and of every candidate: a batch's size may change its arithmetic."""
PIXELS_AT_ONCE = 2**22
"""Pixels that a piece draws in one call, at least one picture: 4 of 1024x1024, whose decoding takes some GiB each."""


@dataclass(frozen=True)
class Simulation:
    """A loaded model that generates in torch."""

    family: Family
    model: LoadedModel
    manifest: EngineManifest

    @cached_property
    def graphs(self) -> tuple[GraphModule, ...]:
        """The pieces, on the components' device with all their buffers."""
        graphs = self.family.graphs(self.model)
        for graph in graphs:
            graph.module.to(next(self.model.components[graph.component].parameters()).device)
        return graphs

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
        pixels = max(plan.shape.width * plan.shape.height * (plan.shape.frames or 1) for plan in manifest.shapes)
        at_once = min(2 * BATCH_SIZE, max(1, PIXELS_AT_ONCE // pixels))
        return Engine(manifest, runners, self.constants, tokenizer, max_batch_size=at_once)

    def quantize(self, component: str, recipe: ComponentRecipe, samples: Sequence[Sample]) -> QuantizationSummary:
        """Quantize a component in place, calibrated on the model's own trajectories for `samples` at all output sizes."""
        with quiet_imports():
            from engine_builder.quantization import quantize  # noqa: PLC0415
        engine = self.engine()

        def calibrate(_: torch.nn.Module) -> None:
            for size, part in over_sizes(samples, [plan.shape.name for plan in self.manifest.shapes]):
                draw(engine, part, size=size, batch_size=BATCH_SIZE)

        exclude = self.family.sensitive_layers(component)
        return quantize(self.model.components[component], recipe, calibrate=calibrate, exclude=exclude)

    def save(self, component: str, recipe: ComponentRecipe, folder: Path) -> None:
        """Keep what `quantize` changed."""
        with quiet_imports():
            from engine_builder.quantization import save_quantized  # noqa: PLC0415
        save_quantized(self.model.components[component], recipe, folder / f"{component}.safetensors")

    def restore(self, component: str, folder: Path) -> None:
        """Quantize a component in place as `save` found it."""
        with quiet_imports():
            from engine_builder.quantization import restore_quantized  # noqa: PLC0415
        restore_quantized(self.model.components[component], folder / f"{component}.safetensors")


def tokenizer_file(folder: Path) -> Path:
    """Return where a diffusers folder keeps the tokenizer that serving needs."""
    return folder / "tokenizer" / "tokenizer.json"


def load_simulation(family: Family, folder: Path, manifest: EngineManifest, student: Path | None, placement: Placement) -> Simulation:
    """Load a checkpoint: the numbers that every recipe is measured against."""
    model = family.load(folder, placement.dtype, student)
    for component in model.components.values():
        component.to(placement.device)
    return Simulation(family, model, manifest)
