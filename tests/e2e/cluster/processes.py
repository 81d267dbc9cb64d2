"""The cluster's processes: started in its network and its cgroup, and found there again whatever happened in between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e.cluster import layout
from tests.e2e.cluster.network import inside
from tests.support import waiting

CGROUPS = Path("/sys/fs/cgroup")
GARBAGE_PERCENT = "200"
"""How much the daemons' heaps, all Go's, grow between two collections: twice Go's own 100, for two cores are scarcer here than memory."""
# The shell enters the cgroup itself, so that no child is ever born outside of it, and leaves its child to init: the cluster outlives us.
_START = """
cgroup=$1 log=$2; shift 2
echo $$ > "$cgroup"/cgroup.procs || exit
setsid "$@" < /dev/null >> "$log" 2>&1 &
echo $!
"""


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
    shell = ["sh", "-c", _START, "start", _daemons(), layout.LOGS / f"{name}.log", *inside(), *command]
    environment = {"GOGC": GARBAGE_PERCENT, **os.environ}
    started = subprocess.run(shell, stdout=subprocess.PIPE, text=True, cwd=layout.RUN, env=environment, check=True)
    (layout.PIDS / name).write_text(started.stdout)


def stop(name: str) -> None:
    """End a daemon of ours, and wait for its end."""
    if is_running(name):
        os.kill(int((layout.PIDS / name).read_text()), signal.SIGTERM)
        wait_until(f"the end of {name}", lambda: not is_running(name), 30)


def is_running(name: str) -> bool:
    """Tell whether a daemon lives and is ours: a process number may have been given to another since."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((layout.PIDS / name).read_text())
        return pid in _members(_daemons()) and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def daemon_names() -> list[str]:
    """Return the names of all daemons that were started."""
    return sorted(path.name for path in layout.PIDS.iterdir()) if layout.PIDS.is_dir() else []


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
    return not members


def _groups() -> Iterator[Path]:
    """Yield every cgroup of ours, children first."""
    # Beside version 1's controllers, runc makes groups in version 2's hierarchy too where that is mounted.
    for root in {*cgroup_roots(), CGROUPS / "unified"}:
        for folder, _, _ in os.walk(root / layout.CGROUP, topdown=False):
            yield Path(folder)


def _members(group: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    return []


def wait_until(what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Wait for `probe` to hold.

    Raises:
        ClusterError: It did not within `seconds`; the message names the cluster's logs.
    """
    try:
        waiting.wait_until(what, probe, seconds)
    except waiting.NotInTimeError as error:
        raise ClusterError(f"{error}; see {layout.LOGS}") from None
