"""What `diffusionctl plan` knows ahead: why an engine would be built and what is reused, without a change to the store."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusion_api.accelerator import Compiler
from diffusion_api.build_report import BuildReport
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.parsing import parse_build_job
from diffusion_api.recipe import ComponentRecipe, NoStepCache, Precision, Recipe
from engine_builder.build import ENGINE_STAGE, REPORT_FILE, BuildSettings, EnginePlan, plan_engine
from engine_builder.errors import QualityBudgetError
from engine_builder.preview import StoreView, nearest_engine, preview_stages
from engine_builder.preview.difference import COMPILER_PACKAGES
from engine_builder.preview.view import NotInStoreError
from engine_builder.progress import SilentProgress
from engine_builder.stage_runner import TOOLS, StageRunner, tool_versions
from engine_builder.store import Store, digest_of
from tests.support.builds import digits_job


def plan_of(root: Path, **optimization: object) -> EnginePlan:
    return plan_engine(parse_build_job(digits_job(**optimization)), StoreView(root))


def publish(root: Path, plan: EnginePlan, **changes: object) -> None:
    """Put an engine of a plan into a store, as far as its report goes."""
    now = datetime.now(UTC)
    report = BuildReport(
        engine_key=plan.engine_key,
        job=plan.job,
        resolved_revision=plan.revision,
        family="flux2",
        recipe=Recipe(components={"transformer": ComponentRecipe()}, precision=Precision.FP32, step_cache=NoStepCache()),
        simulated=False,
        verified_on_engine=True,
        quality=MeasuredQuality(psnr=40),
        unoptimized_mib=4,
        optimized_mib=2,
        versions=dict(tool_versions(tuple({*TOOLS["export"], COMPILER_PACKAGES[Compiler.OPENVINO]}))),
        started_at=now,
        finished_at=now,
    ).model_copy(update=changes)
    with Store(root).building(ENGINE_STAGE, plan.engine_key) as folder:
        (folder / REPORT_FILE).write_text(json.dumps(report.to_wire()))


def test_what_differs_from_the_nearest_engine_is_named_with_both_values(tmp_path: Path) -> None:
    publish(tmp_path, plan_of(tmp_path, qualityBudget={"minPSNR": 20}, quantization={"format": "FP8"}))
    publish(tmp_path, plan_of(tmp_path, qualityBudget={"minPSNR": 20}))
    nearest = nearest_engine(plan_of(tmp_path), StoreView(tmp_path))
    assert nearest is not None
    assert nearest.name == f"engine-{plan_of(tmp_path, qualityBudget={'minPSNR': 20}).engine_key[:16]}"
    assert [str(each) for each in nearest.differences] == ["optimization.qualityBudget.minPSNR: 20.0 there, 25.0 here"]


def test_another_version_of_a_package_is_a_difference(tmp_path: Path) -> None:
    other = plan_of(tmp_path, calibration={"samples": 5})
    publish(tmp_path, other, versions={**tool_versions(("diffusion-operator", "torch")), "torch": "1.0"})
    nearest = nearest_engine(plan_of(tmp_path), StoreView(tmp_path))
    assert nearest is not None
    fields = {each.field: each.stored for each in nearest.differences}
    assert fields["torch version"] == "1.0"
    assert fields["optimization.calibration.samples"] == 5


def test_an_engine_of_another_model_is_not_compared_with(tmp_path: Path) -> None:
    other = plan_of(tmp_path, calibration={"samples": 5})
    job = other.job.model_copy(update={"model": other.job.model.model_copy(update={"uri": "hf://owner/other"})})
    publish(tmp_path, other, job=job, resolved_revision="0" * 40)
    assert nearest_engine(plan_of(tmp_path), StoreView(tmp_path)) is None


def test_a_damaged_artifact_is_not_there_and_stays_where_it_is(tmp_path: Path) -> None:
    digest = digest_of("x")
    with Store(tmp_path).building("fetch", digest) as folder:
        (folder / "file").write_text("whole")
    (Store(tmp_path).path("fetch", digest) / "file").write_text("cut")
    view = StoreView(tmp_path)
    assert view.find("fetch", digest) is None
    assert view.path("fetch", digest).is_dir()
    with pytest.raises(NotInStoreError):
        view.obtain("fetch", digest, lambda _: pytest.fail("it built"))


def test_a_store_that_is_not_there_is_not_made_and_its_checkpoint_would_be_fetched(tmp_path: Path) -> None:
    root = tmp_path / "store"
    preview = preview_stages(plan_of(root), StoreView(root), BuildSettings())
    assert [(each.stage, each.in_store) for each in preview.stages] == [("fetch", False)]
    assert not root.exists()


def test_every_recipe_is_followed_to_the_first_stage_that_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StageRunner(Store(tmp_path), SilentProgress()).run("fetch", ("digits",), lambda _: None)
    StageRunner(Store(tmp_path), SilentProgress()).run("quantize", ("INT8",), lambda _: None)

    def run_workflow(plan: EnginePlan, store: Store, _: BuildSettings, progress: SilentProgress) -> None:
        runner = StageRunner(store, progress)
        runner.run("fetch", ("digits",), lambda _: pytest.fail("it ran"))
        for candidate in plan.candidates:
            name = candidate.recipe.components["transformer"].label
            runner.run("quantize", (name,), lambda _: pytest.fail("it ran"), label=name)
            raise QualityBudgetError("no recipe holds the budget")

    monkeypatch.setitem(sys.modules, "engine_builder.workflow", SimpleNamespace(run_workflow=run_workflow))  # The real one is torch.
    plan = plan_of(tmp_path, quantization={"format": "Auto"})
    preview = preview_stages(plan, StoreView(tmp_path), BuildSettings())
    found = {f"{each.stage} {each.label}".strip(): each.in_store for each in preview.stages}
    assert found == {"fetch": True, "quantize INT8": True, "quantize INT8 SmoothQuant": False, "quantize unquantized": False}
    assert preview.problem == "no recipe holds the budget"
