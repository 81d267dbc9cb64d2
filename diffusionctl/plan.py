"""`diffusionctl plan`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffusionctl.files import job_of_file
from engine_builder.build import ENGINE_STAGE, BuildSettings, EnginePlan, plan_engine
from engine_builder.preview import NearestEngine, StagePreview, StoreView, nearest_engine, preview_stages

NONE_OF_THIS_MODEL = "no engine of this model is in the store"


@dataclass(frozen=True)
class Outlook:
    """What would be built, why, and what is reused."""

    plan: EnginePlan
    why: str
    """Why it would be built; empty where it is in the store."""
    nearest: NearestEngine | None
    preview: StagePreview

    def to_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {
            **self.plan.to_json(),
            "why": self.why or None,
            "nearest": asdict(self.nearest) if self.nearest else None,
            "stages": [{"stage": each.stage, "label": each.label, "inStore": each.in_store} for each in self.preview.stages],
            "problem": self.preview.problem or None,
        }


def show_plan(file: Path, store_folder: Path, *, simulate: bool, as_json: bool) -> None:
    """Print the engine key, what decides it, why it would be built, and which stages are done already; change nothing."""
    settings, store = BuildSettings(base_folder=file.parent), StoreView(store_folder)
    plan = plan_engine(job_of_file(file, simulate=simulate), store, settings)
    outlook = _outlook(plan, store, settings)
    if as_json:
        print(json.dumps(outlook.to_json(), indent=2))
        return
    console = Console(highlight=False)
    console.print(f"engine key  {plan.engine_key}\nrevision    {plan.revision}\ncompiler    {plan.compiler}")
    console.print(f"published   {plan.published or 'no: it would be built'}", soft_wrap=True)
    if outlook.why:
        console.print(f"why         {escape(outlook.why)}", soft_wrap=True)
    if outlook.preview.problem:
        console.print(f"[yellow]a build on this machine would fail: {escape(outlook.preview.problem)}[/]", soft_wrap=True)
    console.print(_recipes(plan))
    console.print(f"[dim]{_legend(plan)}[/]", soft_wrap=True)
    if outlook.preview.stages:
        console.print(_stages(outlook.preview))
        console.print("[dim]Further stages depend on what these find, so they are known only once these have run.[/]", soft_wrap=True)


def _outlook(plan: EnginePlan, store: StoreView, settings: BuildSettings) -> Outlook:
    if plan.published is not None:
        return Outlook(plan, "", None, StagePreview(()))
    nearest = nearest_engine(plan, store)
    why = _damage(plan, store) or str(nearest or NONE_OF_THIS_MODEL)
    return Outlook(plan, why, nearest, preview_stages(plan, store, settings))


def _damage(plan: EnginePlan, store: StoreView) -> str:
    """Say what is wrong with the engine of this very key; empty where there is none."""
    if not store.has(ENGINE_STAGE, plan.engine_key):
        return ""
    problems = store.verify(store.path(ENGINE_STAGE, plan.engine_key))[:3] or ("its build.json cannot be read",)
    return f"the engine of this key in the store counts as damaged: {'; '.join(problems)}"


def _recipes(plan: EnginePlan) -> Table:
    table = Table("recipe", "expected speed", "simulated", title="Recipes, in the order they are tried", title_justify="left")
    for candidate in plan.candidates:
        label = candidate.recipe.label.rsplit(", ", 1)[0]
        table.add_row(label, f"{candidate.expected_speedup:.2f}×", "yes" if candidate.simulated else "no")
    return table


def _stages(preview: StagePreview) -> Table:
    table = Table("stage", "of", "in the store", title="Stages that are known by now", title_justify="left")
    for each in preview.stages:
        table.add_row(each.stage, escape(each.label), "yes: reused" if each.in_store else "no: it would run")
    return table


def _legend(plan: EnginePlan) -> str:
    words = "Expected speed: relative to the engine that is not quantized; the engine itself is measured when it is built."
    if any(candidate.simulated for candidate in plan.candidates):
        words += " Simulated: this accelerator has no kernels for the format, so that its arithmetic is reproduced, without the speed."
    return words
