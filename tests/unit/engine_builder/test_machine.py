"""What a machine is, where a container is given only a part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine_builder import machine

MIB = 2**20


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Zen 9 \n")
    (tmp_path / "meminfo").write_text("MemTotal:    9216 kB\nMemFree: 1 kB\n")
    return tmp_path


def test_a_machine_is_named_by_its_processor_and_the_cores_that_may_be_used(files: Path) -> None:
    assert machine.processor() == "Zen 9, 16 cores"


@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 16), ("250000 100000", 3), ("100000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(files: Path, limit: str, cores: int) -> None:
    (files / "cpu.max").write_text(limit + "\n")
    assert machine.usable_cores() == cores


@pytest.mark.parametrize(("limit", "mebibytes"), [("", 9), ("max", 9), (str(3 * MIB), 3), (str(99 * MIB), 9)])
def test_a_container_has_the_memory_of_its_limit(files: Path, limit: str, mebibytes: int) -> None:
    (files / "memory.max").write_text(limit + "\n")
    assert machine.memory_bytes() == mebibytes * MIB
