"""The cluster's processes: started in its network and its cgroup, and found there again whatever happened in between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.network import inside

CGROUPS = Path("/sys/fs/cgroup")
# The shell enters the cgroup itself, so that no child is ever born outside of it.
_ENTER = 'echo $$ > "$0"/cgroup.procs && exec "$@"'


class ClusterError(Exception):
    """The cluster could not be started or used; the message says where to look."""


def cgroup_roots() -> list[Path]:
    """Return the mount of each hierarchy: one under cgroup v2, one a controller under v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({path.parent.resolve() for path in CGROUPS.glob("*/cgroup.procs") if path.parent.name != "unified"})


def _daemons() -> Path:
    roots = cgroup_roots()
    root = next((root for root in roots if root.name == "pids"), roots[0])
    return root / layout.CGROUP / "daemons"


def create_cgroups() -> None:
    """Create the root of the kubelet's cgroups in each hierarchy, and beside it the daemons' own."""
    for root in cgroup_roots():
        (root / layout.CGROUP).mkdir(exist_ok=True)
    _daemons().mkdir(exist_ok=True)


def start(name: str, *command: str | Path) -> None:
    """Start a daemon in the cluster's network, logging to `logs/<name>.log`."""
    with (layout.LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", _ENTER, _daemons(), *inside(), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=layout.RUN,
        )
    (layout.PIDS / name).write_text(str(process.pid))


def is_running(name: str) -> bool:
    """Tell whether a daemon lives and is ours: a process number may have been given to another since."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((layout.PIDS / name).read_text())
        return pid in _members(_daemons()) and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def daemon_names() -> list[str]:
    """Return the names of all daemons that were started."""
    return sorted(path.name for path in layout.PIDS.iterdir()) if layout.PIDS.is_dir() else []


def stop(name: str, seconds: float = 10) -> None:
    """Ask a daemon to end, and wait for it; what is left, `kill_all` takes."""
    if not is_running(name):
        return
    os.kill(int((layout.PIDS / name).read_text()), signal.SIGTERM)
    with contextlib.suppress(ClusterError):
        wait_until(f"the end of {name}", lambda: not is_running(name), seconds)


def kill_all() -> None:
    """Kill every process of the cluster, its pods' included, and remove its cgroups."""
    wait_until("the end of the cluster's processes", _kill_once, 30)
    for group in _groups():
        with contextlib.suppress(OSError):
            group.rmdir()


def _kill_once() -> bool:
    members = {pid for group in _groups() for pid in _members(group)}
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return not members


def _groups() -> Iterator[Path]:
    """Yield every cgroup of ours, children first."""
    for root in cgroup_roots():
        for folder, _, _ in os.walk(root / layout.CGROUP, topdown=False):
            yield Path(folder)


def _members(group: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    return []


def wait_until(what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Wait for `probe` to hold.

    Raises:
        ClusterError: It did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not come within {seconds:.0f} s; see {layout.LOGS}")
        time.sleep(0.1)
