"""Lints the chart by Helm, with its own values and with each of the test's. Where Helm is not, it says so and holds up nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster.programs import HELM

LEFT_OUT = """\
chart lint by Helm was LEFT OUT, for there is no Helm here; the chart's schema and README were checked.
Put `helm` 3 on PATH, or build it with `{python} -m tests.e2e.cluster build` (needs Go; `make test` does it too).
"""


def helm_path() -> Path | None:
    """Return the Helm that the tests' cluster built, which is pinned, or else that of PATH."""
    if HELM.is_built():
        return HELM.path
    found = shutil.which("helm")
    return Path(found) if found else None


def lint(chart: Path, values: Path) -> int:
    """Lint the chart with its own values and with each file of a folder; return 1 if any was refused."""
    helm = helm_path()
    if helm is None:
        sys.stderr.write(LEFT_OUT.format(python=sys.executable))
        return 0
    failed = False
    for file in (None, *sorted(values.glob("*.yaml"))):
        command = [str(helm), "lint", "--strict", "--quiet", str(chart), *(["--values", str(file)] if file else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(f"helm lint refuses the chart with {file or 'its own values'}:\n{done.stdout}{done.stderr}\n")
            failed = True
    return int(failed)
