"""Real builds over a bucket, as Jobs run them on one node after another, each with an empty folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.buckets import URI, empty_bucket, s3_server
from tests.support.builds import digits_job, kill_in, run, write_job


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server() as endpoint, empty_bucket(endpoint, monkeypatch) as client:
        monkeypatch.setenv("DIFFUSION_STORE_URI", URI)
        yield client


@pytest.mark.usefixtures("client")
def test_a_build_killed_on_one_node_goes_on_on_the_next_and_a_third_finds_the_engine(tmp_path):
    job = write_job(tmp_path, digits_job())
    done = set(kill_in("verify", job, tmp_path / "one"))
    assert {"reference", "quantize", "export", "compile"} <= done

    second = run(job, tmp_path / "two")
    assert second.code == 0, second.result
    assert set(second.stages(reused=False)) <= {"fetch", "verify", "engine"}

    third = run(job, tmp_path / "three")
    assert (third.code, third.result["reused"]) == (0, True), third.result
    assert third.stages(reused=False) == third.stages(reused=True) == []
    assert third.result["result"] == second.result["result"]
    assert [path.name for path in (tmp_path / "three" / "artifacts").iterdir()] == [third.result["path"].rpartition("/")[2]]
