"""A container's program ends on SIGTERM although it is the container's first process, and even in the middle of a long call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from engine_runtime.sigterm import EXIT_CODE
from tests.support.builds import REPOSITORY
from tests.support.waiting import wait_until

THREADS = {**os.environ, "OPENBLAS_NUM_THREADS": "8", "OMP_NUM_THREADS": "8"}
"""Of libraries that start some as they are imported: any of them may get the signal."""


def catches_sigterm(process: subprocess.Popen[bytes]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(mask >> (signal.SIGTERM - 1) & 1)


def test_a_build_that_is_told_to_end_does_not_wait_for_the_call_it_is_in(tmp_path: Path) -> None:
    pipe = tmp_path / "job.yaml"
    os.mkfifo(pipe)  # Nobody writes into it: reading it takes for ever.
    command = [sys.executable, "-m", "engine_builder", "build", str(pipe), "--store", str(tmp_path / "store")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=REPOSITORY, env=THREADS) as process:
        wait_until("the builder to listen", lambda: catches_sigterm(process), 60)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE
    assert b"the next attempt goes on from it" in said


def test_a_fork_that_is_told_to_end_ends_alone() -> None:
    program = """
import os, signal, time
from engine_runtime.sigterm import end_on_sigterm
end_on_sigterm()
fork = os.fork()
if not fork:
    time.sleep(600)
time.sleep(0.2)
os.kill(fork, signal.SIGTERM)
_, status = os.waitpid(fork, 0)
time.sleep(0.2)
print(os.WTERMSIG(status))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=True)
    assert done.stdout.strip() == str(int(signal.SIGTERM))


def test_words_that_nobody_reads_hold_up_no_end() -> None:
    program = "import os, time; from engine_runtime.sigterm import end_on_sigterm; end_on_sigterm(); print(flush=True); time.sleep(600)"
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == EXIT_CODE
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(os.getuid() != 0, reason="a process namespace of one's own needs root")
def test_the_first_process_of_a_container_ends_too(tmp_path: Path) -> None:
    program = "import numpy, time; from engine_runtime.sigterm import end_on_sigterm; end_on_sigterm(); print(flush=True); time.sleep(600)"
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY, env=THREADS) as unshare:
        assert unshare.stdout is not None
        unshare.stdout.readline()
        (first,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        unshare.communicate(timeout=60)
    assert unshare.returncode == EXIT_CODE
