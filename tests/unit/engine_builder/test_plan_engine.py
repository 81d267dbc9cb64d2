"""What a plan takes into the engine key, and what it refuses before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_api.parsing import parse_build_job
from engine_builder import build, stage_runner
from engine_builder.build import ENGINE_STAGE, REPORT_FILE, EnginePlan, build_engine, find_engine, plan_engine
from engine_builder.errors import InvalidJobError
from engine_builder.progress import SilentProgress
from engine_builder.stage_runner import StageRunner
from engine_builder.store import Store
from tests.support.builds import digits_job


def key_of(job: dict[str, object], folder: Path) -> str:
    return plan_engine(parse_build_job(job), Store(folder / "store")).engine_key


def test_other_weights_to_measure_lpips_with_are_another_engine(tmp_path: Path) -> None:
    weights = tmp_path / "lpips.pt"
    keys = set()
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        keys.add(key_of(digits_job(qualityBudget={"maxLPIPS": 0.1, "lpipsUri": f"file://{weights}"}), tmp_path))
    assert len(keys) == 2


def test_an_engine_for_a_cpu_that_computes_bf16_is_another_than_for_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for capabilities in (("FP32", "INT8"), ("FP32", "INT8", "BIN"), ("FP32", "INT8", "BF16")):
        monkeypatch.setattr(build, "capabilities", lambda found=capabilities: found)
        keys.append(key_of(digits_job(), tmp_path))
    assert keys[0] == keys[1] != keys[2]


def test_prompts_in_a_cluster_are_refused_rather_than_replaced_by_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match=r"calibration\.prompts"):
        key_of(digits_job(calibration={"samples": 4, "promptsConfigMap": {"name": "prompts"}}), tmp_path)


def test_a_job_that_cannot_be_done_is_refused_with_the_path_of_everything_wrong_with_it(tmp_path: Path) -> None:
    job = digits_job(quantization={"format": "Auto", "components": {"vae": {"format": "NVFP4"}}}, qualityBudget={})
    job["accelerator"] = {"product": "NVIDIA-L4"}
    with pytest.raises(InvalidJobError) as refused:
        key_of(job, tmp_path)
    for path in ("optimization.quantization.components.vae.format: ", "optimization.qualityBudget: "):
        assert path in str(refused.value)


@pytest.mark.parametrize("content", ['{"formatVersion": 0}', '{"formatVersion": 1, "inventedLater": true}', "half of {", None])
def test_an_engine_whose_report_cannot_be_read_is_not_there_and_built_anew(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, store = parse_build_job(digits_job()), Store(tmp_path / "store")
    with store.building(ENGINE_STAGE, plan_engine(job, store).engine_key) as folder:
        (folder / "model.xml").write_text("of another time")
        if content is not None:
            (folder / REPORT_FILE).write_text(content)
    assert plan_engine(job, store).published is None
    assert find_engine(job, store) is None
    assert f"{REPORT_FILE} cannot be read, so this engine counts as not built" in caplog.text

    class BuiltAnewError(Exception):
        pass

    def workflow(plan: EnginePlan, *_: object) -> Path:
        assert not store.has(ENGINE_STAGE, plan.engine_key)
        raise BuiltAnewError

    monkeypatch.setattr(build, "_run_workflow", workflow)
    with pytest.raises(BuiltAnewError):
        build_engine(job, store)
    (kept,) = (tmp_path / "store" / "corrupt").iterdir()
    assert (kept / "model.xml").read_text() == "of another time"


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    key_of(digits_job(), tmp_path)
    assert not list((tmp_path / "store" / "artifacts").iterdir())


def test_a_stage_runs_again_when_a_package_that_computes_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def run(torch: str) -> None:
        monkeypatch.setattr(stage_runner, "tool_versions", lambda names: {"torch": torch} if "torch" in names else {})
        for stage in ("fetch", "export"):
            StageRunner(Store(tmp_path), SilentProgress()).run(stage, ("same",), lambda _, stage=stage: runs.append(stage))

    run("2.15.0")
    run("2.15.0")
    run("2.16.0")
    assert runs == ["fetch", "export", "export"]
