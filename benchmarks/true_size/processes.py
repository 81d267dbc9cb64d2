"""Runs one stage in a process of its own and measures it: what it leaves behind in memory ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_INTERVAL_SECONDS = 0.25
_STATUS = ("VmRSS", "RssAnon", "RssFile")


@dataclass(frozen=True)
class Measured:
    """What a stage took."""

    label: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Largest resident memory, as the kernel counted it; pages of mapped files are part of it, and can be dropped at any time."""
    peak_anonymous_bytes: int
    """Largest memory that cannot be dropped, sampled four times a second."""
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    """Empty where it succeeded."""


def run_measured(label: str, stage: str, arguments: Sequence[Any]) -> Measured:
    """Run `python -m benchmarks.true_size.worker STAGE ARGUMENTS` and measure it until it ends."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.true_size.worker", stage, json.dumps(arguments), str(result)])
        anonymous = 0
        while True:
            anonymous = max(anonymous, _status(process.pid).get("RssAnon", 0))
            ended, code, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(_INTERVAL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(code)
        facts = json.loads(result.read_text()) if result.exists() else {}
    return Measured(
        label=label,
        seconds=time.monotonic() - started,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        peak_anonymous_bytes=anonymous,
        facts=facts,
        failure="" if facts else f"exit code {process.returncode}",
    )


def _status(pid: int) -> dict[str, int]:
    """Source: proc(5), /proc/pid/status; in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0].rstrip(":"): int(pair[1]) * 1024 for pair in pairs if pair and pair[0].rstrip(":") in _STATUS}
