from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from diffusion_api.build_report import BuildReport
from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.parsing import parse_build_job
from engine_builder.build import build_engine
from engine_builder.store import Store
from engine_builder.workflow import verification
from engine_runtime.executors.threads import cpu_threads
from tests.support.builds import digits_job, run_here, write_job


def report_of(finished) -> BuildReport:
    return BuildReport.model_validate_json((Path(finished.result["path"]) / "build.json").read_text())


def test_a_build_publishes_a_model_repository_with_its_report(built):
    folder = Path(built.result["path"])
    report = report_of(built)
    assert (folder / "model_repository" / "transformer" / "1" / "model.xml").is_file()
    assert "<html" in (folder / "report.html").read_text()
    assert report.quality.psnr is not None
    assert report.quality.psnr > 35
    assert report.verified_on_engine
    assert report.comparison is not None  # Speed is measured; how much there is of it, a benchmark says.


def test_the_report_names_the_parity_of_every_piece(built):
    errors = {piece.name: piece.relative_error for piece in report_of(built).pieces}
    assert set(errors) == {"text_encoder", "transformer", "vae_decoder"}
    assert all(error is not None and error < 1e-3 for error in errors.values())
    assert {piece.parity_size for piece in report_of(built).pieces} == {"64x64"}


def test_the_manifest_carries_key_and_recipe(built):
    folder = Path(built.result["path"])
    manifest = EngineManifest.model_validate_json((folder / "model_repository" / "pipeline" / "1" / "engine.json").read_text())
    assert manifest.engine_key == built.result["engineKey"]
    assert manifest.recipe == report_of(built).recipe


def test_checksums_cover_every_file_of_the_package(built):
    folder = Path(built.result["path"])
    for name, expected in report_of(built).checksums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert "model_repository/transformer/1/model.bin" in report_of(built).checksums


def test_the_same_job_again_is_reused(built, shared_store, tmp_path):
    again = run_here(write_job(tmp_path, digits_job()), shared_store)
    assert again.code == 0
    assert again.result["reused"] is True
    assert again.result["engineKey"] == built.result["engineKey"]


def test_a_changed_step_cache_repeats_neither_quantization_nor_export(built, shared_store, tmp_path):
    masked = digits_job(stepCache={"policy": "FixedMask", "mask": [True, True, True, False]}, qualityBudget={"minPSNR": 15})
    again = run_here(write_job(tmp_path, masked), shared_store)
    assert again.code == 0, again.result
    assert {"fetch", "reference", "candidate", "export"} <= set(again.stages(reused=True))
    assert set(again.stages(reused=False)) == {"compile", "verify", "engine"}  # A named mask is measured on the engine, and nowhere else.
    assert report_of(again).recipe.step_cache.policy == "FixedMask"
    assert {piece.name for piece in report_of(again).pieces} >= {"transformer_prelude", "transformer_body", "transformer_head"}
    gain = report_of(again).comparison.step_cache_gain
    assert gain is not None
    assert report_of(again).step_cache.decision.endswith(f"on the engine it saves {gain:.0%}, measured")


def test_a_step_cache_that_gains_too_little_on_the_engine_is_left_out(built, shared_store, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "MIN_GAIN", 1.01)  # What no cache reaches.
    automatic = digits_job(stepCache={"policy": "Auto"}, qualityBudget={"minPSNR": 12})
    report = report_of(run_here(write_job(tmp_path, automatic), shared_store))
    assert report.recipe.step_cache.policy == "None"
    assert report.comparison.without_step_cache is None
    (candidate,) = report.candidates
    assert re.search(r"compiled, .*: the step cache saves .* on the engine, less than 101%", candidate.note)


def test_another_largest_batch_repeats_nothing_but_the_compilation(built, shared_store, tmp_path):
    again = run_here(write_job(tmp_path, digits_job() | {"maxBatchSize": 2}), shared_store)
    assert again.code == 0, again.result
    assert set(again.stages(reused=False)) == {"compile", "verify", "engine"}


def test_a_quantized_text_encoder_is_quantized_exported_and_compiled_once_for_all_transformer_recipes(built, shared_store, tmp_path):
    text_encoder = {"components": {"textEncoder": {"format": "INT8"}}}
    first = run_here(write_job(tmp_path, digits_job(quantization={"format": "INT8", **text_encoder})), shared_store)
    smooth = {"format": "INT8", "algorithm": "SmoothQuant", **text_encoder}
    second = run_here(write_job(tmp_path, digits_job(quantization=smooth)), shared_store)
    assert (first.code, second.code) == (0, 0), second.result
    assert first.stages(reused=False).count("quantize") == 1  # The text encoder; the transformer in INT8 is in the store.
    assert first.stages(reused=False).count("export") == 1
    assert second.stages(reused=False).count("quantize") == 1  # The transformer.
    assert second.stages(reused=False).count("export") == 1


def test_an_engine_is_measured_anew_on_another_machine(built, shared_store, tmp_path, monkeypatch):
    def verification(min_psnr: float, machine: str) -> tuple[bool, str]:
        monkeypatch.setattr("engine_builder.workflow.context.processor", lambda: machine)
        job = parse_build_job(digits_job(qualityBudget={"minPSNR": min_psnr}))  # A limit is part of the key, and of no measurement.
        report = build_engine(job, Store(shared_store)).report
        (stage,) = [stage for stage in report.stages if stage.name.startswith("verify")]
        return stage.reused, report.comparison.measured_on

    assert verification(24, "one processor") == (False, "one processor")
    assert verification(23, "one processor") == (True, "one processor")
    assert verification(22, "another processor") == (False, "another processor")
    monkeypatch.setenv("DIFFUSION_CPU_THREADS", "2" if cpu_threads() == 1 else "1")
    assert verification(21, "another processor") == (False, "another processor")


def test_a_corrupted_engine_is_built_again(built, shared_store, tmp_path):
    damaged = Path(built.result["path"]) / "model_repository" / "transformer" / "1" / "model.bin"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    again = run_here(write_job(tmp_path, digits_job()), shared_store)
    assert again.code == 0
    assert again.result["reused"] is False
    assert not again.stages(reused=False) or set(again.stages(reused=False)) <= {"compile", "verify", "engine"}
    assert json.loads((Path(again.result["path"]) / "build.json").read_text())["engineKey"] == built.result["engineKey"]
