"""The builder's last line, read the way the operator reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_api.build_report import BuildReport, Comparison, Latency, StageTiming
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.engine import MOST_WARNINGS
from diffusion_api.parsing import parse_build_job
from diffusion_api.recipe import ComponentRecipe, Recipe
from diffusion_operator.planning.builder_output import builder_end
from engine_builder import __main__ as builder
from engine_builder.build import ENGINE_STAGE, REPORT_FILE, BuiltEngine, read_engine
from engine_builder.result_line import TERMINATION_MESSAGE_LIMIT, failure_line, success_line, termination_message
from engine_builder.store import Store
from tests.support.builds import digits_job, write_job

KEY = "0123456789abcdef" * 4
BEGIN = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)


def report(**changes: Any) -> BuildReport:
    values: dict[str, Any] = {
        "engine_key": KEY,
        "job": parse_build_job(digits_job()),
        "resolved_revision": "0123abc",
        "family": "flux2-klein",
        "recipe": Recipe(components={"transformer": ComponentRecipe(format="INT8")}),
        "simulated": False,
        "verified_on_engine": True,
        "quality": MeasuredQuality(psnr=41.23),
        "comparison": Comparison(
            unoptimized=Latency(median_ms=200, p95_ms=210, repeats=5), optimized=Latency(median_ms=100.0449, p95_ms=110, repeats=5)
        ),
        "unoptimized_mib": 8.0,
        "optimized_mib": 4.0,
        "started_at": BEGIN,
        "finished_at": BEGIN,
    }
    return BuildReport(**{**values, **changes})


def published(store: Store, key: str = KEY, *stages: str) -> BuiltEngine:
    """An engine in a store, made from artifacts of the given names."""
    timings = tuple(StageTiming(name="export", seconds=1, peak_memory_mib=1, artifact=stage) for stage in stages)
    with store.building(ENGINE_STAGE, key) as folder:
        (folder / REPORT_FILE).write_text(json.dumps(report(engine_key=key, stages=timings).to_wire()))
    return read_engine(store.path(ENGINE_STAGE, key), reused=False)


def test_the_operator_reads_the_engine_from_the_real_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "build_engine", lambda job, store, settings, progress: published(store))
    log = tmp_path / "termination-log"
    log.touch()
    job = write_job(tmp_path, digits_job())
    assert builder.main(["build", str(job), "--store", str(tmp_path / "store"), "--termination-log", str(log)]) == 0
    for text in (log.read_text(), capsys.readouterr().out):
        end = builder_end(text)
        assert end is not None
        assert end.succeeded
        assert end.result is not None
        assert end.result.artifact == "artifacts/engine-0123456789abcdef"
        assert end.result.quality_summary == "41.2 dB (≥ 25 dB)"
        assert end.result.latency is not None
        assert end.result.latency.median_ms == 100.0, "people read it; the report has every digit"
        assert (tmp_path / "store" / end.result.artifact / REPORT_FILE).is_file()


def test_a_relative_store_gives_the_same_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line: Any = success_line(published(Store(Path("store"))), Path("store"))
    assert line["result"]["artifact"] == "artifacts/engine-0123456789abcdef"


@given(
    warnings=st.lists(st.text(max_size=900), max_size=100),
    label=st.text(min_size=1, max_size=100).map(lambda text: text * 10),
    folder=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=2000),
)
def test_a_success_of_any_size_reaches_the_operator(warnings: list[str], label: str, folder: str) -> None:
    store = Path("/", folder) if folder not in {".", ".."} else Path("/store")
    built = BuiltEngine(store / "artifacts/engine-0123456789abcdef", report(warnings=tuple(warnings)), reused=False)
    line: Any = success_line(built, store)
    line["result"]["recipe"]["label"] = label
    message = termination_message(line)
    assert len(message) <= TERMINATION_MESSAGE_LIMIT
    end = builder_end(message.decode())
    assert end is not None
    assert end.result is not None
    assert end.result.artifact == "artifacts/engine-0123456789abcdef"
    kept = end.result.warnings
    assert kept == tuple(line["result"].get("warnings", ()))[: len(kept)]


def test_what_fits_loses_nothing() -> None:
    line = success_line(BuiltEngine(Path("/store/artifacts/engine-0123456789abcdef"), report(), reused=True), Path("/store"))
    assert json.loads(termination_message(line)) == line


def test_a_success_that_is_too_long_loses_warnings_before_latencies() -> None:
    warnings = tuple(f"warning {number} {'x' * 200}" for number in range(MOST_WARNINGS))
    built = BuiltEngine(Path("/store/artifacts/engine-0123456789abcdef"), report(warnings=warnings), reused=False)
    kept = json.loads(termination_message(success_line(built, Path("/store"))))
    assert "path" not in kept
    assert 0 < len(kept["result"]["warnings"]) < MOST_WARNINGS
    assert kept["result"]["warnings"][0] == warnings[0]
    assert {"latency", "unoptimizedLatency", "qualitySummary"} <= kept["result"].keys()


def test_a_failure_keeps_its_exit_code() -> None:
    end = builder_end(termination_message(failure_line(builder.InvalidJobError("no " * 4000))).decode())
    assert end is not None
    assert (end.succeeded, end.exit_code, end.result) == (False, 64, None)
    assert end.message.startswith("no no")
