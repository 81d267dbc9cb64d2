"""The operator's own pod: its command line is one that the operator takes, its settings are those that the values say."""

from __future__ import annotations

import re

import pytest
import yaml

from diffusion_operator.arguments import HEALTH_PORT, METRICS_PORT, parse_arguments
from diffusion_operator.settings import OperatorSettings
from diffusion_operator.settings_file import DEFAULT_PATH, parse_settings
from tests.chart.rendering import CHART, NAMESPACE, RELEASE, VARIANTS, of_kind, one, render, run_template
from tests.unit.diffusion_operator.test_manifests_against_kubernetes import problems


def operator_container(variant="default", *settings):
    (container,) = one(render(variant, *settings), "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def settings_of(variant, *settings):
    (manifest,) = [each for each in render(variant, *settings) if "settings.yaml" in each.get("data", {})]
    return parse_settings(yaml.safe_load(manifest["data"]["settings.yaml"]), source="settings.yaml")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operator_reads_the_settings_that_are_rendered(variant):
    assert isinstance(settings_of(variant), OperatorSettings)


def test_without_values_the_settings_are_the_operators_own_defaults():
    assert settings_of("default") == OperatorSettings()


def test_every_pod_is_laid_over_the_settings():
    settings = settings_of("everything")
    assert settings.images.registry == "mirror.example/cache"
    assert settings.images.pull_secrets == ("mirror", "own")
    assert settings.images.pull_policy == "Always"
    assert [each["key"] for each in settings.tolerations] == ["nvidia.com/gpu", "dedicated"]
    assert settings.node_selector == {"pool": "pictures", "tier": "gpu"}
    assert [each["name"] for each in settings.env] == ["HTTPS_PROXY", "NO_PROXY", "HF_ENDPOINT"]
    assert settings.ca_config_map == "corporate-ca"
    assert settings.build.queue_name == "gpus"
    assert settings.build.resources.memory == "128Gi"


def test_a_registry_of_the_settings_goes_before_that_of_every_pod():
    assert settings_of("default", "everyPod.registry=a.example", "settings.images.registry=b.example").images.registry == "b.example"


def test_changed_settings_restart_the_operator_and_changed_labels_do_not_change_its_selector():
    before, after = (one(render("default", *each), "Deployment")["spec"] for each in ((), ("settings.build.queueName=gpus",)))
    assert before["template"]["metadata"]["annotations"] != after["template"]["metadata"]["annotations"]
    assert before["selector"] == after["selector"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operator_takes_the_command_line(variant):
    container = operator_container(variant)
    arguments = parse_arguments(container["args"], {})
    assert container["command"] == ["python3", "-m", "diffusion_operator"]
    assert arguments.settings == DEFAULT_PATH
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"health": HEALTH_PORT, "metrics": METRICS_PORT}


def test_the_command_line_says_what_the_values_say():
    arguments = parse_arguments(operator_container("everything")["args"], {})
    assert (arguments.workers, arguments.resync_seconds, arguments.log_level) == (16, 300, "debug")
    small = parse_arguments(operator_container("minimal")["args"], {})
    assert small.namespaces == ("007", "pictures")
    assert (small.leader_election, small.log_format) == (False, "text")


def test_replicas_share_one_lease_and_each_has_its_own_name():
    container = operator_container("everything")
    assert parse_arguments(container["args"], {}).lease_name == "painter-diffusion-operator"
    fields = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"] if "valueFrom" in each}
    assert fields == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_replicas_without_an_election_are_refused():
    done = run_template("default", "replicas=2", "operator.leaderElection=false")
    assert done.returncode
    assert "several replicas need operator.leaderElection" in done.stderr


def test_without_an_election_two_operators_never_run_at_once():
    assert one(render("minimal"), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_knows_every_field(variant):
    for manifest in render(variant):
        if not manifest["apiVersion"].startswith("monitoring."):
            assert problems(manifest, f"V1{manifest['kind']}", manifest["kind"]) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_namespaced_objects_say_their_namespace(variant):
    for manifest in render(variant):
        namespace = manifest["metadata"].get("namespace")
        if manifest["kind"].startswith("Cluster"):
            assert namespace is None
        elif manifest["kind"] not in ("Role", "RoleBinding"):
            assert namespace == NAMESPACE


def test_a_release_named_like_the_chart_does_not_say_it_twice():
    assert one(render("default", release="diffusion-operator"), "Deployment")["metadata"]["name"] == "diffusion-operator"
    assert one(render("default", release=RELEASE), "Deployment")["metadata"]["name"] == f"{RELEASE}-diffusion-operator"


@pytest.mark.parametrize("release", ["1", "2-diffusion-operator", "painter.v2", "x" * 53])
def test_every_release_gets_names_that_a_service_may_have(release):
    # Source: Kubernetes, "Object Names and IDs", RFC 1035 label names.
    manifests = render("everything", release=release)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one(manifests, "Service")["metadata"]["name"])
    deployment = one(manifests, "Deployment")
    assert deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == release


def test_a_variable_of_every_pod_gives_way_to_that_of_the_settings():
    settings = ("everyPod.env[0].name=A", "everyPod.env[0].value=every", "settings.env[0].name=A", "settings.env[0].value=own")
    assert settings_of("default", *settings).env == ({"name": "A", "value": "own"},)


def test_the_notes_name_the_two_next_commands():
    notes = (CHART / "templates/NOTES.txt").read_text(encoding="utf-8")
    assert [line.split()[0] for line in notes.splitlines() if line.startswith("  kubectl")] == ["kubectl"] * 2


def test_the_network_policy_lets_in_metrics_from_whom_it_is_told():
    (policy,) = of_kind(render("everything"), "NetworkPolicy")
    metrics, health = policy["spec"]["ingress"]
    assert metrics["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert health == {"ports": [{"port": "health"}]}
    assert policy["spec"]["egress"][0] == {"ports": [{"port": 6443}]}
    assert not of_kind(render("minimal"), "NetworkPolicy")
