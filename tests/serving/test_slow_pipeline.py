"""Claims about requests that take long: step cache, cancellation, a full queue."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from diffusion_api.serving import Serving
from engine_runtime.client import PipelineClient, ServerError, generate
from engine_runtime.triton import drain
from engine_runtime.triton.server import LocalTriton, TritonPorts
from tests.serving.observing import metric, metric_of, metrics_page, wait_for_metric
from tests.serving.toy_engine import write_toy_engine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.serving


def test_steps_that_the_cache_leaves_out_do_not_run(slow_triton):
    before = metric(slow_triton, "nv_inference_count", model="transformer_body")
    (answer,) = generate(slow_triton.grpc_url, "red", seed=1)
    assert answer.metadata["steps"] == {"computed": 3, "skipped": 1}
    assert metric(slow_triton, "nv_inference_count", model="transformer_body") - before == 3
    wait_until("a skipped step", lambda: metric(slow_triton, "diffusion_steps_total", outcome="skipped") >= 1, 10)


def test_a_client_that_leaves_stops_its_request(slow_triton):
    answers = generate(slow_triton.grpc_url, "red", seed=1, preview_every=1)
    assert next(answers).is_preview
    answers.close()
    for _ in range(4):  # A later request ends after the first has met its next step; a few more, should the news be slow.
        next(generate(slow_triton.grpc_url, "red", seed=1))
        if metric(slow_triton, "diffusion_requests_total", outcome="cancelled"):
            break
    wait_for_metric(slow_triton, 1, "diffusion_requests_total", outcome="cancelled")
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")


def test_an_open_connection_outlives_a_cancelled_request_and_a_refused_one(slow_triton):
    with PipelineClient(slow_triton.grpc_url) as client:
        (first,) = client.generate("red", seed=1)
        left = client.generate("red", seed=2, preview_every=1)
        assert next(left).is_preview
        left.close()
        with pytest.raises(ServerError, match="use one of"):
            next(client.generate("red", size="1x1"))
        (again,) = client.generate("red", seed=1)
    assert again.data == first.data
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")


def test_a_client_opens_its_connection_anew_where_the_server_ended_between_two_requests(tmp_path, installation):
    write_toy_engine(tmp_path / "repository", tmp_path / "work", Serving())
    ports = TritonPorts().resolved()
    server = partial(LocalTriton, tmp_path / "repository", installation=installation, ports=ports)
    with server() as first, PipelineClient(first.grpc_url) as client:
        (before,) = client.generate("red", seed=1)
        first.stop()
        with server():
            (after,) = client.generate("red", seed=1)
    assert after.data == before.data


def test_a_server_that_drains_waits_for_the_picture_that_is_half_drawn(slow_triton):
    drawn = metric(slow_triton, "diffusion_requests_total", outcome="ok")
    answers = generate(slow_triton.grpc_url, "red", seed=1, preview_every=1)
    assert next(answers).is_preview
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, answers)
        assert drain.main(["--timeout-seconds=60", f"--metrics-url={slow_triton.metrics_url}"]) == 0
        assert metric(slow_triton, "diffusion_requests_total", outcome="ok") == drawn + 1
    assert not rest.result()[-1].is_preview


def outcome(client: PipelineClient, seed: int) -> str:
    try:
        return next(client.generate("blue", seed=seed)).metadata["type"]
    except ServerError as error:
        return str(error)


@contextmanager
def crowd(url: str, size: int) -> Iterator[list[str]]:
    """So many clients that ask again at once, whether they got a picture or were refused; grows by the outcome of each request.

    They ask until the block ends: how soon a queue is full depends on how busy the machine is.
    """
    outcomes: list[str] = []
    enough = threading.Event()

    def ask(seed: int) -> None:
        with PipelineClient(url) as client:
            while not enough.is_set():
                outcomes.append(outcome(client, seed))

    with ThreadPoolExecutor(size) as pool:
        clients = [pool.submit(ask, seed) for seed in range(size)]
        try:
            yield outcomes
        finally:
            enough.set()
    for client in clients:
        client.result()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(slow_triton):
    def draw(seed: int) -> str:
        return next(generate(slow_triton.grpc_url, "blue", seed=seed)).metadata["type"]

    with ThreadPoolExecutor(4) as pool:  # Three run and one waits: none of four is refused.
        assert list(pool.map(draw, range(4))) == ["result"] * 4
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")
    with crowd(slow_triton.grpc_url, 16) as outcomes:
        wait_until("a picture and a refusal", lambda: "result" in outcomes and set(outcomes) != {"result"}, 60)
    refused = [text for text in outcomes if text != "result"]
    assert all(re.search(r"1 requests wait already; try again in \d+ s", text) for text in refused)
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")


def test_waiting_requests_are_counted_by_our_gauge_and_not_by_tritons_own(slow_triton):
    """Triton hands a decoupled model its requests at once and counts them no more: whoever scales by its count sees an idle server."""
    own_count = 'nv_inference_pending_request_count{model="pipeline",version="1"}'

    def full_and_uncounted() -> bool:  # Not each full page: Triton counts a request for the moment in which it hands it over.
        page = metrics_page(slow_triton)
        counts.append(metric_of(page, "diffusion_pending_requests"))
        return counts[-1] == 4 and f"{own_count} 0\n" in page

    counts: list[float] = []
    with crowd(slow_triton.grpc_url, 6):  # Three run and one waits; the others are refused.
        wait_until("a full queue that Triton does not count", full_and_uncounted, 60)
    assert max(counts) == 4
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")
