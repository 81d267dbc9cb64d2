"""`make bench`: every benchmark in turn, each in a process of its own so that none warms up another.

python -m benchmarks [NAME ...]

`control_plane` is apart: it needs root and the tests' cluster.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("cpu_backends", "digits", "step_cache", "triton_overhead", "build_time")


def main() -> int:
    """Run the benchmarks named, or all; return the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none is all")
    names = parser.parse_args().names or BENCHMARKS
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    return sum(_run(name) != 0 for name in names)


def _run(name: str) -> int:
    print(f"\n== {name}", flush=True)
    return subprocess.run([sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
