"""What all stages of one build share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from diffusion_api.build_job import BuildJob
from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.optimization import QuantizationFormat
from diffusion_api.recipe import ComponentRecipe, Recipe
from engine_builder.build import EnginePlan
from engine_builder.compilers import compiler_for
from engine_builder.compilers.base import Compiler
from engine_builder.evaluation.metrics import PerceptualModels
from engine_builder.evaluation.samples import SampleSplit
from engine_builder.families.base import Family
from engine_builder.machine import processor
from engine_builder.stage_runner import StageRunner
from engine_builder.workflow.checkpoint_stage import Checkpoint
from engine_builder.workflow.placement import Placement
from engine_builder.workflow.simulation import Simulation, load_simulation


@dataclass(frozen=True)
class BuildContext:
    """One build in progress."""

    plan: EnginePlan
    runner: StageRunner
    checkpoint: Checkpoint
    family: Family
    manifest: EngineManifest
    """Without pieces, recipe and step cache."""
    placement: Placement
    """Where and in which type torch draws."""
    samples: SampleSplit
    perceptual_models: PerceptualModels
    """Weights for LPIPS and CLIP, where the budget limits them."""
    scratch: dict[str, Simulation]
    """Models in memory, by recipe, so that a stage need not load again what the one before it had."""

    @property
    def job(self) -> BuildJob:
        """The job."""
        return self.plan.job

    @property
    def compiler(self) -> Compiler:
        """The compiler of the accelerator."""
        return compiler_for(self.job.accelerator)

    @property
    def machine(self) -> str:
        """What engines are measured on: the GPU, or the processor with its cores."""
        return processor() if self.job.accelerator.is_cpu else torch.cuda.get_device_name(0)

    @property
    def arithmetic(self) -> list[str]:
        """What decides the numbers that torch gives, for the digests of stages that draw."""
        return [self.placement.device.type, str(self.placement.dtype)]

    @property
    def drawing(self) -> EngineManifest:
        """The manifest as far as it decides what torch draws, for the digests of stages that draw: not how many are served at once."""
        return self.manifest.model_copy(update={"max_batch_size": 1})

    def quantized_components(self, recipe: Recipe) -> Mapping[str, ComponentRecipe]:
        """Return the components that a recipe changes."""
        return {name: part for name, part in recipe.components.items() if part.format is not QuantizationFormat.NONE}

    def simulation(self, name: str, prepare: Callable[[Simulation], None]) -> Simulation:
        """Return the model of this name, loaded and `prepare`d where it is not in memory; only the last one is kept."""
        if name not in self.scratch:
            self.release()
            simulation = load_simulation(self.family, self.checkpoint.folder, self.manifest, self.checkpoint.student, self.placement)
            prepare(simulation)
            self.scratch[name] = simulation
        return self.scratch[name]

    def release(self) -> None:
        """Forget the models in memory, and give back what torch keeps of a GPU's: TensorRT takes from the rest."""
        self.scratch.clear()
        if self.placement.device.type == "cuda":
            gc.collect()  # Hooks of ModelOpt hold their modules in cycles.
            torch.cuda.empty_cache()
