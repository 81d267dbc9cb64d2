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
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    return tmp_path


def test_a_machine_is_named_by_its_processor_and_the_cores_that_may_be_used(files: Path) -> None:
    assert machine.processor() == "Zen 9, 16 cores"


@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 16), ("250000 100000", 3), ("100000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(files: Path, limit: str, cores: int) -> None:
    (files / "cpu.max").write_text(limit + "\n")
    assert machine.usable_cores() == cores


def test_memory_is_what_the_kernel_calls_available_where_nothing_limits_it(files: Path) -> None:
    assert machine.available_memory_bytes() == 4 * MIB
    (files / "memory.max").write_text("max\n")
    assert machine.available_memory_bytes() == 4 * MIB


def test_a_container_has_what_its_limit_leaves_and_gets_the_page_cache_back(files: Path) -> None:
    (files / "memory.max").write_text(str(3 * MIB))
    (files / "memory.current").write_text(str(2 * MIB))
    (files / "memory.stat").write_text(f"anon 5\ninactive_file {MIB // 2}\nactive_file {MIB // 4}\n")
    assert machine.available_memory_bytes() == MIB + MIB // 2 + MIB // 4
