"""The Grafana dashboards of the chart, from a short list of panels each: one of the operator, one of what it serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 12, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    unit: str
    """Grafana's name of a unit: `short`, `s`, `bytes`, `reqps` …"""
    queries: tuple[tuple[str, str], ...]
    """PromQL and the legend of each."""
    description: str = ""


_OPERATOR = 'controller_runtime_max_concurrent_reconciles{controller="diffusiondeployment"}'
"""The operator's pods, by a series that they alone have: other controllers count requests under the same name."""
OPERATOR = (
    Panel(
        "Objects by Ready condition",
        "short",
        (("sum by (kind, ready, reason) (diffusion_operator_objects)", "{{kind}} {{ready}} {{reason}}"),),
        "Each reason has an entry on the troubleshooting page.",
    ),
    Panel("Leader", "short", (("leader_election_master_status", "{{pod}}"),), "1 is the replica that works."),
    Panel(
        "Builds that ended, an hour",
        "short",
        (("sum by (result) (increase(diffusion_operator_builds_total[1h]))", "{{result}}"),),
    ),
    Panel(
        "Build duration, median and worst tenth",
        "s",
        (
            ("histogram_quantile(0.5, sum by (le) (rate(diffusion_operator_build_duration_seconds_bucket[1d])))", "median"),
            ("histogram_quantile(0.9, sum by (le) (rate(diffusion_operator_build_duration_seconds_bucket[1d])))", "p90"),
        ),
    ),
    Panel(
        "Rollouts that ended, an hour",
        "short",
        (("sum by (result) (increase(diffusion_operator_rollouts_total[1h]))", "{{result}}"),),
    ),
    Panel(
        "Reconciles",
        "ops",
        (
            (
                'sum by (controller, result) (rate(controller_runtime_reconcile_total{controller=~"diffusion.*"}[5m]))',
                "{{controller}} {{result}}",
            ),
        ),
    ),
    Panel(
        "Reconcile duration, p99",
        "s",
        (
            (
                "histogram_quantile(0.99, sum by (controller, le)"
                ' (rate(controller_runtime_reconcile_time_seconds_bucket{controller=~"diffusion.*"}[5m])))',
                "{{controller}}",
            ),
        ),
    ),
    Panel("Queue", "short", (('sum by (name) (workqueue_depth{name=~"diffusion.*"})', "{{name}}"),), "Objects that wait to be looked at."),
    Panel(
        "Held back",
        "ops",
        (("sum by (controller) (rate(diffusion_operator_unsettled_total[15m]))", "{{controller}}"),),
        "Reconciles that kept changing the same object: something else changes it back.",
    ),
    Panel(
        "Requests to the API server",
        "reqps",
        ((f"sum by (method, code) (rate(rest_client_requests_total[5m]) and on (namespace, pod) {_OPERATOR})", "{{method}} {{code}}"),),
    ),
)
_OURS = 'namespace=~"$namespace",diffusionoperator_io_deployment=~"$deployment"'
SERVING = (
    Panel("Requests", "reqps", ((f"sum by (outcome) (rate(diffusion_requests_total{{{_OURS}}}[5m]))", "{{outcome}}"),)),
    Panel(
        "Requests that wait or run, a pod",
        "short",
        ((f"diffusion_pending_requests{{{_OURS}}}", "{{pod}}"),),
        "What autoscaling aims at.",
    ),
    Panel(
        "Time of a request by stage",
        "s",
        (
            (
                f"sum by (stage) (rate(diffusion_stage_seconds_total{{{_OURS}}}[5m]))"
                f' / on() group_left sum(rate(diffusion_requests_total{{{_OURS},outcome="ok"}}[5m]))',
                "{{stage}}",
            ),
        ),
    ),
    Panel(
        "Denoising steps left out by the step cache",
        "percentunit",
        (
            (
                f'sum(rate(diffusion_steps_total{{{_OURS},outcome="skipped"}}[5m])) / sum(rate(diffusion_steps_total{{{_OURS}}}[5m]))',
                "left out",
            ),
        ),
    ),
    Panel(
        "Requests that share a call",
        "short",
        (
            (
                f"sum by (model) (rate(nv_inference_count{{{_OURS}}}[5m])) / sum by (model) (rate(nv_inference_exec_count{{{_OURS}}}[5m]))",
                "{{model}}",
            ),
        ),
        "The mean batch of each piece.",
    ),
    Panel(
        "Prompts found in the cache",
        "percentunit",
        (
            (
                f'sum(rate(diffusion_prompt_cache_total{{{_OURS},outcome="hit"}}[5m]))'
                f" / sum(rate(diffusion_prompt_cache_total{{{_OURS}}}[5m]))",
                "found",
            ),
        ),
    ),
    Panel("GPU memory", "bytes", ((f"nv_gpu_memory_used_bytes{{{_OURS}}}", "{{pod}} {{gpu_uuid}}"),)),
    Panel(
        "Energy of a picture",
        "joule",
        ((f'sum(rate(nv_energy_consumption{{{_OURS}}}[5m])) / sum(rate(diffusion_requests_total{{{_OURS},outcome="ok"}}[5m]))', "mean"),),
        "Of the GPUs alone.",
    ),
)


def dashboards() -> dict[str, str]:
    """Text of each dashboard by its file name."""
    pods = "diffusion_pending_requests"
    variables = [
        _variable("namespace", f"label_values({pods}, namespace)"),
        _variable("deployment", f'label_values({pods}{{namespace=~"$namespace"}}, diffusionoperator_io_deployment)'),
    ]
    built = {
        "operator.json": _dashboard("diffusion-operator", "Diffusion operator", OPERATOR, []),
        "serving.json": _dashboard("diffusion-serving", "Diffusion serving", SERVING, variables),
    }
    return {name: json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n" for name, dashboard in built.items()}


def _dashboard(uid: str, title: str, panels: Sequence[Panel], variables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    datasource = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["diffusion-operator"],
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [datasource, *variables]},
        "panels": [_panel(index, panel) for index, panel in enumerate(panels)],
    }


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": index % 2 * WIDTH, "y": index // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + position), "expr": query, "legendFormat": legend, "datasource": DATASOURCE}
            for position, (query, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "query": query,
        "datasource": DATASOURCE,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
    }
