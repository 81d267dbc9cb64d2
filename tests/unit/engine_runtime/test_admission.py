"""Claims about the queue's limit."""

from __future__ import annotations

import pytest

from engine_runtime.errors import QueueFullError
from engine_runtime.triton.admission import Admission


def test_those_who_run_and_those_who_may_wait_get_in():
    admission = Admission(concurrent=2, max_waiting=1)
    for _ in range(3):
        admission.enter()
    with pytest.raises(QueueFullError, match="1 requests wait already; try again in 1 s"):
        admission.enter()
    admission.leave(None)
    admission.enter()
    assert admission.pending == 3


def test_the_hint_follows_how_long_requests_take():
    admission = Admission(concurrent=2, max_waiting=10)
    for _ in range(12):
        admission.enter()
    admission.leave(4.0)
    admission.enter()
    with pytest.raises(QueueFullError, match="try again in 10 s"):  # 5 of those that wait, 2 at a time, 4 s each.
        admission.enter()
