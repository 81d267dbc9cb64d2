"""What this machine is: measured speed holds for it alone, and its memory decides what can be loaded. A container's limits count."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""A container sees its own group here (version 2)."""


def processor() -> str:
    """Return the processor and how many cores of it may be used, for example `AMD EPYC 9V74, 16 cores`."""
    cores = usable_cores()
    return f"{_model_name()}, {cores} core{'' if cores == 1 else 's'}"


def usable_cores() -> int:
    """Return the cores that this process may use, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")  # Source: the kernel's cgroup-v2.rst, "cpu.max".
    return min(cores, math.ceil(int(quota) / int(period))) if quota.isdigit() else cores


def memory_bytes() -> int:
    """Return the memory that this process may take at most, whatever others take now: so it is the same at each build."""
    total = next(int(line.split()[1]) * 1024 for line in _read(MEMORY_INFO).splitlines() if line.startswith("MemTotal:"))
    limit = _read(CGROUP / "memory.max")  # Source: cgroup-v2.rst, "memory.max".
    return min(total, int(limit)) if limit.isdigit() else total


def _model_name() -> str:
    for line in _read(CPU_INFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()  # Arm's kernels name no model.


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
