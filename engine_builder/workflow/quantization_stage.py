"""The `quantize` stage: one artifact a component and number format, which every recipe with that component shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from diffusion_api.recipe import ComponentRecipe, Recipe
from engine_builder.stage_runner import StageResult
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.reference_stage import UNOPTIMIZED, identities, unoptimized
from engine_builder.workflow.simulation import Simulation

SUMMARY_FILE = "summary.json"


def quantize_stages(context: BuildContext, recipe: Recipe) -> dict[str, StageResult]:
    """Quantize each component that a recipe changes, or find it in the store."""
    return {name: _quantize(context, name, part) for name, part in context.quantized_components(recipe).items()}


def quantized_simulation(context: BuildContext, quantized: Mapping[str, StageResult]) -> Simulation:
    """Return the model with these components quantized, restored where it is not in memory."""

    def restore(simulation: Simulation) -> None:
        for component, result in quantized.items():
            simulation.restore(component, result.path)

    return context.simulation(_scratch_name(quantized), restore)


def weight_bytes(quantized: StageResult) -> int:
    """Return the size of a quantized component's weights, scales included."""
    return int(json.loads((quantized.path / SUMMARY_FILE).read_text())["weightBytes"])


def _quantize(context: BuildContext, component: str, recipe: ComponentRecipe) -> StageResult:
    """Fit one component's scales on what the *unoptimized* model draws: so they depend on no other component's format."""
    samples = context.samples.calibration
    in_memory: list[Simulation] = []

    def work(folder: Path) -> None:
        simulation = unoptimized(context)
        context.scratch.clear()  # It is quantized in place, so it is no longer the unoptimized one.
        summary = simulation.quantize(component, recipe, samples)
        simulation.save(component, recipe, folder)
        (folder / SUMMARY_FILE).write_text(json.dumps({"weightBytes": summary.weight_bytes}) + "\n")
        in_memory.append(simulation)

    inputs = (context.checkpoint.digest, context.drawing, context.arithmetic, component, recipe, identities(samples))
    result = context.runner.run("quantize", inputs, work, label=f"{component} {recipe.label}")
    for simulation in in_memory:
        context.scratch[_scratch_name({component: result})] = simulation
    return result


def _scratch_name(quantized: Mapping[str, StageResult]) -> str:
    return " ".join(sorted(result.digest for result in quantized.values())) or UNOPTIMIZED
