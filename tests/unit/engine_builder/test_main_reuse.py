"""The builder in a pod and an engine that is in the store already."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_api.parsing import parse_build_job
from engine_builder import __main__ as builder
from engine_builder.build import BuildSettings, plan_engine
from engine_builder.store import Store
from tests.support.builds import digits_job, write_job
from tests.unit.engine_builder.test_main_result import published


def test_a_file_that_changed_at_its_size_is_found_by_a_pod_s_builder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, store = parse_build_job(digits_job()), Store(tmp_path / "store")
    key = plan_engine(job, store).engine_key
    engine = published(store, key).path
    report = engine / "build.json"
    report.write_bytes(report.read_bytes().replace(b"flux2-klein", b"flux2-kl3in"))
    assert plan_engine(job, store).published == engine

    settings: list[BuildSettings] = []
    monkeypatch.setattr(builder, "build_engine", lambda job, store, given, progress: settings.append(given))
    builder.main(["build", str(write_job(tmp_path, digits_job())), "--store", str(store.root)])
    assert plan_engine(job, store, settings[0]).published is None
    assert [each.name.partition("-")[0] for each in (store.root / "corrupt").iterdir()] == ["engine"]
