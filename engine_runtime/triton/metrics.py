"""The pipeline's own metrics, on Triton's /metrics beside its `nv_` ones. Runs inside Triton only."""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

from engine_runtime.requests import GenerationResult


class PipelineMetrics:
    """Counters and gauges; Triton's are safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = _Family("diffusion_steps_total", "Denoising steps, by whether the step cache left them out", "outcome")
        self._prompts = _Family("diffusion_prompt_cache_total", "Prompts looked up in the prompt cache", "outcome")
        self._requests = _Family("diffusion_requests_total", "Finished requests by outcome", "outcome")
        self._seconds = _Family("diffusion_stage_seconds_total", "Seconds spent by stage; divide by diffusion_requests_total", "stage")
        self._pending = _Family("diffusion_pending_requests", "Requests that wait or run", None, gauge=True)

    def finished(self, outcome: str) -> None:
        """Count a request: `ok`, `invalid`, `cancelled`, `refused` or `failed`."""
        self._requests.metric(outcome).increment(1)

    def generated(self, result: GenerationResult, queued_seconds: float) -> None:
        """Count a result's steps and times."""
        self._steps.metric("computed").increment(result.steps_computed)
        self._steps.metric("skipped").increment(result.steps_skipped)
        timings = result.timings
        stages = {"queued": queued_seconds, "encode": timings.encode, "denoise": timings.denoise, "decode": timings.decode}
        for stage, seconds in stages.items():
            self._seconds.metric(stage).increment(seconds)

    def prompt_cache(self, hits: int, misses: int) -> None:
        """Set the prompt cache's counters to its own."""
        with self._lock:
            self._set_prompts(hits, misses)

    def _set_prompts(self, hits: int, misses: int) -> None:
        for outcome, total in (("hit", hits), ("miss", misses)):
            metric = self._prompts.metric(outcome)
            metric.increment(max(0.0, total - metric.value()))

    def pending(self, requests: int) -> None:
        """Set the number of requests that wait or run."""
        self._pending.metric("").set(requests)


class _Family:
    """A metric family and its members by the value of its one label."""

    def __init__(self, name: str, description: str, label: str | None, *, gauge: bool = False) -> None:
        kind = pb_utils.MetricFamily.GAUGE if gauge else pb_utils.MetricFamily.COUNTER
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._label = label
        self._lock = threading.Lock()
        self._members: dict[str, pb_utils.Metric] = {}

    def metric(self, value: str) -> pb_utils.Metric:
        with self._lock:
            if value not in self._members:
                labels = {} if self._label is None else {self._label: value}
                self._members[value] = self._family.Metric(labels=labels)
            return self._members[value]
