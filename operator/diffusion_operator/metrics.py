"""What the operator tells Prometheus: controller-runtime's names, which dashboards know, and its own for builds and rollouts.

Source: sigs.k8s.io/controller-runtime, `pkg/metrics/workqueue.go` and `pkg/internal/controller/metrics`; client-go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

QUEUE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1, 5, 10, 60, 300, 1000)
RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BUILD_BUCKETS = (60, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200)


class OperatorMetrics:
    """Every metric, in a registry of its own."""

    def __init__(self) -> None:
        cast(Callable[[], None], disable_created_metrics)()  # Twice the series, for a time that nobody asks for.
        self.registry = CollectorRegistry()
        named = ["name"]
        by_controller = ["controller"]
        r = self.registry
        self.queue_depth = Gauge("workqueue_depth", "Keys that wait", named, registry=r)
        self.queue_adds = Counter("workqueue_adds_total", "Keys added", named, registry=r)
        self.queue_retries = Counter("workqueue_retries_total", "Keys added again after a failure", named, registry=r)
        self.queue_duration = Histogram(
            "workqueue_queue_duration_seconds", "Time from add to start", named, buckets=QUEUE_BUCKETS, registry=r
        )
        self.work_duration = Histogram("workqueue_work_duration_seconds", "Time at work on a key", named, buckets=QUEUE_BUCKETS, registry=r)
        self.unfinished = Gauge("workqueue_unfinished_work_seconds", "Time at work on keys that are not done, summed", named, registry=r)
        self.longest = Gauge("workqueue_longest_running_processor_seconds", "Time at work on the key that takes longest", named, registry=r)
        self.reconciles = Counter("controller_runtime_reconcile_total", "Reconciles by result", ["controller", "result"], registry=r)
        self.reconcile_errors = Counter("controller_runtime_reconcile_errors_total", "Reconciles that failed", by_controller, registry=r)
        self.reconcile_time = Histogram(
            "controller_runtime_reconcile_time_seconds", "Duration of a reconcile", by_controller, buckets=RECONCILE_BUCKETS, registry=r
        )
        self.workers = Gauge("controller_runtime_max_concurrent_reconciles", "Reconciles that may run at once", by_controller, registry=r)
        self.active = Gauge("controller_runtime_active_workers", "Reconciles that run", by_controller, registry=r)
        self.requests = Counter("rest_client_requests_total", "Requests to the API server", ["code", "method"], registry=r)
        self.leader = Gauge("leader_election_master_status", "Whether this replica is the leader", named, registry=r)
        self.builds = Counter("diffusion_operator_builds_total", "Builds that ended", ["result"], registry=r)
        self.build_seconds = Histogram(
            "diffusion_operator_build_duration_seconds", "Duration of a build", ["result"], buckets=BUILD_BUCKETS, registry=r
        )
        self.rollouts = Counter("diffusion_operator_rollouts_total", "Rollouts that ended", ["result"], registry=r)
        self.unsettled = Counter(
            "diffusion_operator_unsettled_total",
            "Reconciles held back because they kept changing the same object",
            by_controller,
            registry=r,
        )


class ObjectCollector(Collector):
    """Counts objects when it is asked, so that the numbers are never stale."""

    def __init__(self, count: Callable[[], Mapping[tuple[str, str, str], int]]) -> None:
        """`count` gives the number of objects by kind, status of the `Ready` condition, and its reason."""
        self._count = count

    def collect(self) -> Iterable[Metric]:
        """Give `diffusion_operator_objects`."""
        family = GaugeMetricFamily("diffusion_operator_objects", "Objects by Ready condition", labels=["kind", "ready", "reason"])
        for labels, count in self._count().items():
            family.add_metric(labels, count)
        yield family
