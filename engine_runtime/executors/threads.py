"""How many threads a CPU executor may use: what the container is given, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "DIFFUSION_CPU_THREADS"
"""Environment variable that overrides the count."""
OPENMP_VARIABLE = "OMP_NUM_THREADS"
"""What PyTorch and NumPy obey; so whoever limits these limits an engine too, and the two are compared fairly."""


def cpu_threads(
    environment: Mapping[str, str] | None = None,
    cgroup: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Return the environment's `DIFFUSION_CPU_THREADS`, else its `OMP_NUM_THREADS`, else the CPUs of the affinity mask inside the quota.

    Raises:
        ValueError: the variable is not a positive number; whoever set it can fix it.

    Source: `cpu.max`, Linux kernel documentation, "Control Group v2".
    """
    environment = os.environ if environment is None else environment
    wanted = environment.get(VARIABLE)
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ValueError(f"{VARIABLE} is {wanted!r}; set it to a number of threads, at least 1, or leave it out")
        return int(wanted)
    openmp = environment.get(OPENMP_VARIABLE, "").partition(",")[0].strip()  # A list has a number for each level of nesting.
    if openmp.isdecimal() and int(openmp) > 0:
        return int(openmp)
    return max(1, min(len(os.sched_getaffinity(0)), _quota(cgroup / "cpu.max")))


def _quota(file: Path) -> int:
    try:
        quota, period = file.read_text(encoding="ascii").split()
    except OSError:  # No cgroup v2 here, or the root group, which has no such file.
        quota, period = "max", "1"
    unlimited = 2**31
    return unlimited if quota == "max" else math.ceil(int(quota) / int(period))
