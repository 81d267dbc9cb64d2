"""Claims about requests that take long: step cache, cancellation, a full queue."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine_runtime.client import PipelineClient, ServerError, generate
from tests.e2e.cluster.processes import wait_until
from tests.serving.observing import metric, metric_of, metrics_page, wait_for_metric

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


def outcome(url: str, seed: int) -> str:
    try:
        return next(generate(url, "blue", seed=seed)).metadata["type"]
    except ServerError as error:
        return str(error)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(slow_triton):
    with ThreadPoolExecutor(16) as pool:  # Four fit; on a busy machine not all of the others come while these are drawn.
        outcomes = list(pool.map(lambda seed: outcome(slow_triton.grpc_url, seed), range(16)))
    refused = [text for text in outcomes if text != "result"]
    assert 1 <= len(refused) <= 12
    assert all(re.search(r"1 requests wait already; try again in \d+ s", text) for text in refused)


def test_waiting_requests_are_counted_by_our_gauge_and_not_by_tritons_own(slow_triton):
    """Triton hands a decoupled model its requests at once and counts them no more: whoever scales by its count sees an idle server."""
    pages = []
    with ThreadPoolExecutor(6) as pool:  # Three run and one waits; others are refused, and more come until all are done.
        answers = [pool.submit(outcome, slow_triton.grpc_url, seed) for seed in range(24)]
        while not all(answer.done() for answer in answers):
            pages.append(metrics_page(slow_triton))
    full = [page for page in pages if metric_of(page, "diffusion_pending_requests") == 4]
    assert full, [metric_of(page, "diffusion_pending_requests") for page in pages]
    own_count = 'nv_inference_pending_request_count{model="pipeline",version="1"}'
    assert any(f"{own_count} 0\n" in page for page in full)  # Not each: Triton counts a request for the moment in which it hands it over.
    wait_for_metric(slow_triton, 0, "diffusion_pending_requests")
