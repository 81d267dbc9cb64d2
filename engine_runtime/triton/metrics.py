"""The pipeline's own metrics, on Triton's /metrics beside its `nv_` ones. Runs inside Triton only.

Everything goes through one lock: in Triton 2.51 two threads that touch metrics at once crash the server.
"""

from __future__ import annotations

import threading

import triton_python_backend_utils as pb_utils

from engine_runtime.requests import GenerationResult
from engine_runtime.triton.admission import Admission
from engine_runtime.triton.config import PENDING_METRIC

REQUEST_OUTCOMES = ("ok", "invalid", "cancelled", "refused", "failed")
STAGES = ("queued", "encode", "denoise", "decode")


class PipelineMetrics:
    """Counters and a gauge; safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: list[pb_utils.MetricFamily] = []  # A family's metrics die with it.
        steps = "Denoising steps, by whether the step cache left them out"
        self._steps = self._counters("diffusion_steps_total", steps, "outcome", ("computed", "skipped"))
        prompts = "Prompts looked up in the cache of encoded prompts"
        self._prompts = self._counters("diffusion_prompt_cache_total", prompts, "outcome", ("hit", "miss"))
        self._prompts_told = {"hit": 0, "miss": 0}
        self._requests = self._counters("diffusion_requests_total", "Finished requests", "outcome", REQUEST_OUTCOMES)
        self._seconds = self._counters("diffusion_stage_seconds_total", "Seconds that requests spent in a stage", "stage", STAGES)
        description = "Requests that wait or run"
        pending = pb_utils.MetricFamily(name=PENDING_METRIC, description=description, kind=pb_utils.MetricFamily.GAUGE)
        self._families.append(pending)
        self._pending = pending.Metric(labels={})

    def finished(self, outcome: str) -> None:
        """Count a request by one of `REQUEST_OUTCOMES`."""
        with self._lock:
            self._requests[outcome].increment(1)

    def generated(self, result: GenerationResult, queued_seconds: float) -> None:
        """Count a result's steps and times."""
        timings = result.timings
        seconds = (queued_seconds, timings.encode, timings.denoise, timings.decode)
        with self._lock:
            self._steps["computed"].increment(result.steps_computed)
            self._steps["skipped"].increment(result.steps_skipped)
            for stage, spent in zip(STAGES, seconds, strict=True):
                self._seconds[stage].increment(spent)

    def prompt_cache(self, hits: int, misses: int) -> None:
        """Bring the prompt cache's counters up to its own."""
        with self._lock:
            for outcome, total in (("hit", hits), ("miss", misses)):
                if total > self._prompts_told[outcome]:
                    self._prompts[outcome].increment(total - self._prompts_told[outcome])
                    self._prompts_told[outcome] = total

    def pending(self, admission: Admission) -> None:
        """Bring the gauge of requests that wait or run up to date."""
        with self._lock:  # The number is read inside too: else a thread that read it early could set it last.
            self._pending.set(admission.pending)

    def _counters(self, name: str, description: str, label: str, values: tuple[str, ...]) -> dict[str, pb_utils.Metric]:
        family = pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.COUNTER)
        self._families.append(family)
        return {value: family.Metric(labels={label: value}) for value in values}
