"""Ends a container's program on SIGTERM, which the kernel keeps from a container's first process unless the process asks for it."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress

EXIT_CODE = 128 + signal.SIGTERM
_LAST_WORDS = b"SIGTERM: ends here; what is in the store stays, and the next attempt goes on from it\n"


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process at once, with exit code 143. Call it in the main thread.

    Without it an evicted, overdue or deleted pod works on until its grace period is over. A thread waits for what the interpreter writes
    down when a signal comes, in whichever thread that is: a handler of Python's runs in the main thread alone, and there not before a
    compiler or a kernel returns. Nothing is cleaned up: it is for programs that may be killed at any point.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader,), name="sigterm", daemon=True).start()
    # The handler ends the process where something else has taken the interpreter's file: better late than never.
    signal.signal(signal.SIGTERM, lambda number, frame: _end())
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    """Make a fork end by a signal as any process does: its file is its parent's too, whom else it would end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _wait(reader: int) -> None:
    while os.read(reader, 1) != bytes([signal.SIGTERM]):
        pass
    _end()


def _end() -> None:
    with suppress(OSError, ValueError):  # Nobody need read the log any more.
        if select.select([], [2], [], 0)[1]:
            os.write(2, _LAST_WORDS)
    os._exit(EXIT_CODE)
