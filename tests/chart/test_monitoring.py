"""Alerts and dashboards ask for metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from diffusion_api.base import GROUP
from diffusion_api.conditions import Reason
from diffusion_operator.arguments import parse_arguments
from diffusion_operator.metrics import ObjectCollector, OperatorMetrics
from diffusion_operator.reconciling.status_metrics import ROLLOUT_ENDS, StatusMetrics
from tests.chart.rendering import CHART, ROOT, of_kind, one, render

# Source: Triton Inference Server 2.51, docs/user_guide/metrics.md.
TRITON_METRICS = {"nv_inference_count", "nv_inference_exec_count", "nv_gpu_memory_used_bytes", "nv_energy_consumption"}
TARGET_LABELS = {"namespace", "pod", "job", GROUP.replace(".", "_") + "_deployment"}
KEYWORDS = {"and", "sum", "max", "rate", "increase", "absent", "histogram_quantile", "by", "on", "group_left", "le"}
DASHBOARDS = sorted((CHART / "files/dashboards").glob("*.json"))
RULES = [rule for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def operator_metrics() -> dict[str, set[str]]:
    """Labels of each series, by its name, as Prometheus sees it."""
    metrics = OperatorMetrics()
    found: dict[str, set[str]] = {}
    for collector in [each for each in vars(metrics).values() if hasattr(each, "_labelnames")]:
        labels = set(collector._labelnames)
        for family in collector.describe():
            kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            for suffix in kinds.get(family.type, ("",)):
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    (family,) = ObjectCollector(lambda: {("a", "True", "b"): 1}).collect()
    return {**found, family.name: set(family.samples[0].labels)}


def serving_metrics() -> dict[str, set[str]]:
    section = (ROOT / "docs/reference/serving.md").read_text(encoding="utf-8").split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(diffusion_\w+)` \| \w+ \| (?:`(\w+)`)?", section, re.MULTILINE)
    return {name: {label} if label else set() for name, label in rows}


METRICS = {**operator_metrics(), **serving_metrics(), **{name: {"model", "gpu_uuid"} for name in TRITON_METRICS}}


def expressions() -> list[tuple[str, str]]:
    rules = [(rule["alert"], rule["expr"]) for rule in RULES]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            rules += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return rules


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda each: each[:40])
def test_an_expression_names_only_metrics_that_exist_with_labels_that_they_have(where, expression):
    without_text = re.sub(r'"[^"]*"', '""', expression)
    grouped = {label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", without_text) for label in re.findall(r"\w+", group)}
    selected = {label for group in re.findall(r"\{([^}]*)\}", without_text) for label in re.findall(r"(\w+)\s*[=!]", group)}
    bare = re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)|\[[^\]]*\]", " ", without_text)
    names = set(re.findall(r"\b[a-z_]\w+", bare)) - KEYWORDS
    assert names
    assert names <= set(METRICS), where
    labels = set.union(*(METRICS[name] for name in names)) | TARGET_LABELS
    assert grouped | selected <= labels, where


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda each: each[:40])
def test_an_expression_has_even_brackets(where, expression):
    text = re.sub(r'"[^"]*"', "", expression)
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing), where


def test_an_unknown_metric_would_be_found():
    assert "workqueue_depht" not in METRICS
    assert METRICS["workqueue_queue_duration_seconds_bucket"] == {"name", "le"}
    assert METRICS["diffusion_requests_total"] == {"outcome"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_happens_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(rule["annotations"]["description"]) > 60
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+m", rule["for"])


def test_alerts_name_reasons_that_exist():
    named = {
        reason
        for rule in RULES
        for pattern in re.findall(r'reason[!=]~"([^"]+)"', rule["expr"])
        for reason in re.findall(r"[A-Z]\w+", re.sub(r"Engine\((\w+)\|(\w+)\|(\w+)\)", r"Engine\1|Engine\2|Engine\3", pattern))
    }
    assert named
    assert named <= {reason.value for reason in Reason}


@pytest.mark.parametrize(
    "reason",
    [
        Reason.NO_MATCHING_NODE,
        Reason.IMAGE_UNAVAILABLE,
        Reason.VOLUME_UNAVAILABLE,
        Reason.APPLY_REFUSED,
        Reason.PROMPTS_NOT_FOUND,
        Reason.ENGINE_BUILD_FAILED,
        Reason.BUILD_DEADLINE_EXCEEDED,
        Reason.OUT_OF_MEMORY,
        Reason.CLEANUP_FAILED,
    ],
)
def test_an_engine_that_goes_no_further_is_heard_of(reason):
    asked = [re.search(r'kind="DiffusionEngine",ready="False",reason=~"([^"]+)"', rule["expr"]) for rule in RULES]
    assert any(pattern and re.fullmatch(pattern[1], reason.value) for pattern in asked)


def test_the_first_rollout_that_is_abandoned_is_heard_of():
    (expression,) = [rule["expr"] for rule in RULES if rule["alert"] == "DiffusionRolloutAbandoned"]
    (result,) = re.findall(r'diffusion_operator_rollouts_total\{result="(\w+)"\}', expression)
    assert result == ROLLOUT_ENDS[Reason.ROLLOUT_ABANDONED]
    metrics = OperatorMetrics()
    StatusMetrics(metrics)
    assert metrics.registry.get_sample_value("diffusion_operator_rollouts_total", {"result": result}) == 0


def test_monitoring_objects_carry_the_labels_by_which_they_are_found():
    manifests = render("everything")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert one(manifests, kind)["metadata"]["labels"]["release"] == "prometheus"
    names = [rule["alert"] for group in one(manifests, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert names == [rule["alert"] for rule in RULES]
    boards = [each for each in of_kind(manifests, "ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]
    assert [json.loads(text)["uid"] for each in boards for text in each["data"].values()] == ["diffusion-operator", "diffusion-serving"]
    assert boards[0]["metadata"]["annotations"] == {"grafana_folder": "Pictures"}


@pytest.mark.parametrize("settings", [(), ("nameOverride=painter",)], ids=["the release's name", "a name of its own"])
def test_the_alert_on_a_missing_leader_asks_for_the_lease_that_replicas_share(settings):
    manifests = render("everything", *settings)
    arguments = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    lease = parse_arguments(arguments, {}).lease_name
    rules = one(manifests, "PrometheusRule")["spec"]["groups"][0]["rules"]
    (expression,) = [rule["expr"] for rule in rules if rule["alert"] == "DiffusionOperatorNoLeader"]
    assert expression == f'max by (name) (leader_election_master_status{{name="{lease}"}}) == 0'


def test_the_service_monitor_finds_the_service():
    manifests = render("everything")
    monitor, service = one(manifests, "ServiceMonitor"), one(manifests, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == [each["name"] for each in service["spec"]["ports"]]


def test_without_being_asked_for_there_is_no_monitoring_object():
    assert not [each for each in render() if each["apiVersion"].startswith("monitoring.")]
