"""Waiting for what comes in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_SECONDS = 0.1


class NotInTimeError(Exception):
    """What was waited for did not come."""


def wait_until(what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Wait for `probe` to hold.

    Raises:
        NotInTimeError: It did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
