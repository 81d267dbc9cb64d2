from __future__ import annotations

import os

import pytest

from engine_runtime.executors.threads import cpu_threads


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("limit", "threads"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9000000 100000", 8)]
)
def test_threads_follow_the_containers_quota(limit, threads, tmp_path, eight_cpus):
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cpu_threads({}, tmp_path) == threads


def test_without_a_quota_they_follow_the_affinity(tmp_path, eight_cpus):
    assert cpu_threads({}, tmp_path) == 8


def test_the_environment_overrides(tmp_path, eight_cpus):
    assert cpu_threads({"DIFFUSION_CPU_THREADS": "3"}, tmp_path) == 3


@pytest.mark.parametrize(("value", "threads"), [("2", 2), ("4,2", 4), ("0", 8), ("all", 8)])
def test_what_limits_torch_limits_an_engine_too(value, threads, tmp_path, eight_cpus):
    assert cpu_threads({"OMP_NUM_THREADS": value}, tmp_path) == threads
    assert cpu_threads({"OMP_NUM_THREADS": value, "DIFFUSION_CPU_THREADS": "3"}, tmp_path) == 3


@pytest.mark.parametrize("value", ["0", "-1", "many", ""])
def test_a_wrong_count_says_what_to_set(value):
    with pytest.raises(ValueError, match="set it to a number of threads"):
        cpu_threads({"DIFFUSION_CPU_THREADS": value})
