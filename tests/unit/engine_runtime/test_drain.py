"""A serving pod ends when its requests are done, not before, and not never."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, repeat

from engine_runtime.triton import drain
from engine_runtime.triton.drain import POLL_SECONDS, main, pending_requests, wait_until_drained

METRICS = """# HELP diffusion_pending_requests Requests that wait or run
# TYPE diffusion_pending_requests gauge
diffusion_pending_requests{model="pipeline",version="1"} %s
nv_inference_count{model="pipeline",version="1"} 12
"""


class Clock:
    """Time passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drained(self, *pending: float | None, timeout_seconds: float = 100) -> float | None:
        looks = chain(pending, repeat(pending[-1]))
        return wait_until_drained(lambda: next(looks), timeout_seconds, sleep=self.sleep, clock=lambda: self.now)


@contextmanager
def metrics(text: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


def test_it_waits_for_the_last_request():
    clock = Clock()
    assert clock.drained(3, 2, 1, 0) == 0
    assert clock.now == 4 * POLL_SECONDS


def test_a_request_that_is_counted_late_is_waited_for():
    clock = Clock()
    assert clock.drained(0, 1, 1, 0, 0) == 0
    assert clock.now == 4 * POLL_SECONDS


def test_it_gives_up_in_time_and_says_how_many_are_left():
    clock = Clock()
    assert clock.drained(2, timeout_seconds=30) == 2
    assert clock.now == 30


def test_a_server_that_is_gone_is_not_waited_for():
    clock = Clock()
    assert clock.drained(1, None) is None
    assert clock.now == POLL_SECONDS


def test_a_server_that_answers_late_counts_as_busy(monkeypatch, capsys):
    monkeypatch.setattr(drain, "ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # Takes connections, and never says a word.
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/metrics"
        assert pending_requests(url) == math.inf
        assert main(["--timeout-seconds=0", f"--metrics-url={url}"]) == 1
    assert f"{url} does not answer, requests may not be done within 0 s" in capsys.readouterr().err
    clock = Clock()
    assert clock.drained(1, math.inf, 1, 0) == 0
    assert clock.now == 4 * POLL_SECONDS


def test_the_gauge_is_read_from_triton_s_metrics():
    with metrics(METRICS % "3") as url:
        assert pending_requests(url) == 3
    with metrics("nv_inference_count 1\n") as url:
        assert pending_requests(url) is None
    assert pending_requests(url) is None  # Nobody listens any more.


def test_the_hook_fails_where_requests_are_cut_off(capsys):
    with metrics(METRICS % "2") as url:
        assert main(["--timeout-seconds=0", f"--metrics-url={url}"]) == 1
    assert "2 requests were not done within 0 s" in capsys.readouterr().err
    with metrics(METRICS % "0") as url:
        assert main(["--timeout-seconds=9", f"--metrics-url={url}"]) == 0
