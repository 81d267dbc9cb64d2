"""Ends a container's program on SIGTERM, which the kernel keeps from a container's first process unless the process asks for it."""

from __future__ import annotations

import os
import signal
import threading

EXIT_CODE = 128 + signal.SIGTERM
_LAST_WORDS = b"SIGTERM: ends here; what is in the store stays, and the next attempt goes on from it\n"


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process at once, with exit code 143.

    Without it an evicted, overdue or deleted pod works on until its grace period is over. A thread waits for the signal, for a handler of
    Python's runs in the main thread alone, and there not before a compiler or a kernel returns. Nothing is cleaned up: it is for programs
    that may be killed at any point. Call it before any other thread starts; processes that are started later inherit the blocked signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end, name="sigterm", daemon=True).start()


def _end() -> None:
    signal.sigwait({signal.SIGTERM})
    os.write(2, _LAST_WORDS)
    os._exit(EXIT_CODE)
