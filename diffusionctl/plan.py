"""`diffusionctl plan`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusionctl.files import job_of_file
from engine_builder.build import BuildSettings, EnginePlan, plan_engine
from engine_builder.store import Store


def show_plan(file: Path, store_folder: Path, *, simulate: bool, as_json: bool) -> None:
    """Print the engine key, what decides it, and which stages are done already."""
    plan = plan_engine(job_of_file(file, simulate=simulate), Store(store_folder), BuildSettings(base_folder=file.parent))
    if as_json:
        print(json.dumps(plan.to_json(), indent=2))
        return
    console = Console(highlight=False)
    console.print(f"engine key  {plan.engine_key}\nrevision    {plan.revision}\ncompiler    {plan.compiler}")
    console.print(f"published   {plan.published or 'no: it would be built'}", soft_wrap=True)
    console.print(_recipes(plan))
    console.print(f"[dim]{_legend(plan)}[/]", soft_wrap=True)


def _recipes(plan: EnginePlan) -> Table:
    table = Table("recipe", "expected speed", "simulated", title="Recipes, in the order they are tried", title_justify="left")
    for candidate in plan.candidates:
        label = candidate.recipe.label.rsplit(", ", 1)[0]
        table.add_row(label, f"{candidate.expected_speedup:.2f}×", "yes" if candidate.simulated else "no")
    return table


def _legend(plan: EnginePlan) -> str:
    words = "Expected speed: relative to the engine that is not quantized; the engine itself is measured when it is built."
    if any(candidate.simulated for candidate in plan.candidates):
        words += " Simulated: this accelerator has no kernels for the format, so that its arithmetic is reproduced, without the speed."
    return words
