"""What the API server makes of every kind of child (defaults filled in, empty fields left out) is no difference to the operator."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.e2e.diffusion_operator.operator_process import OperatorProcess
from tests.e2e.diffusion_operator.play import Play
from tests.e2e.diffusion_operator.test_first_deployment import EXAMPLES

EVERYTHING = {
    "images": {"pullSecrets": ["regcred"]},
    "serving": {"resources": {"cpu": "0.5", "memory": "1024Mi"}, "shmSize": "1024Mi"},
    "build": {"resources": {"cpu": "1000m", "memory": "2048Mi", "ephemeralStorage": "1.5Gi"}},
    "scaling": {"prometheusUrl": "http://prometheus:9090"},
    "dynamicResources": {"enabled": True},
    "nodeSelector": {"pool": "images"},
    "runtimeClassName": "nvidia",
    "schedulerName": "other",
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "EMPTY", "value": ""}],
    "caConfigMap": "corporate-ca",
}
BUCKET = {"engineStore": {"kind": "S3", "uri": "s3://models/engines", "secretName": "s3"}}


def lenient_crd(group, plural, kind, version):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": plural, "kind": kind, "singular": kind.lower()}
    versions = [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    metadata = {"name": f"{plural}.{group}"}
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": versions}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module", autouse=True)
def others(control_plane):
    """The kinds of KEDA and of the Prometheus operator, and NVIDIA's runtime."""
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}
    control_plane.kubectl.apply(
        runtime_class,
        lenient_crd("keda.sh", "scaledobjects", "ScaledObject", "v1alpha1"),
        lenient_crd("monitoring.coreos.com", "podmonitors", "PodMonitor", "v1"),
    )
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all")


def example(name, **spec):
    manifest = yaml.safe_load((EXAMPLES / name).read_text())
    manifest["spec"] |= spec
    return manifest


@pytest.mark.parametrize(
    ("settings", "manifest", "kinds"),
    [
        ({}, example("digits.yaml"), {"PodMonitor"}),
        (
            EVERYTHING,
            example("flux2-klein-b200.yaml", autoscaling={"minReplicas": 0, "maxReplicas": 4}),
            {"ScaledObject", "ResourceClaimTemplate"},
        ),
        (BUCKET, example("flux2-klein-b200.yaml", autoscaling={"minReplicas": 1, "maxReplicas": 1}), {"PodMonitor"}),
    ],
    ids=["defaults", "everything", "bucket"],
)
def test_a_second_operator_finds_nothing_to_write(control_plane, kubectl, namespace, settings, manifest, kinds):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "builder", settings=settings):
        kubectl.apply(manifest, namespace=namespace)
        (job,) = play.wait_for("jobs")
        play.end_job(job)
        (deployment,) = play.wait_for("deployments.apps")
        play.serve(deployment)
        play.wait("Ready", lambda: play.said("dd")[0] == "True")
    for kind in kinds:
        assert play.items(f"{kind.lower()}s"), f"there is no {kind}"
    with OperatorProcess(control_plane, "second", "--resync-seconds=1", settings=settings) as process:
        play.wait("the lease", process.leads)
        looked = process.metric("controller_runtime_reconcile_total")
        play.wait("three resyncs", lambda: process.metric("controller_runtime_reconcile_total") >= looked + 6)
        assert process.writes() == 0, [line for line in process.lines() if "ade" in line["message"]]
        assert process.metric("controller_runtime_reconcile_total", result="success") > 0
        assert process.metric("controller_runtime_reconcile_errors_total") == 0


def test_drift_of_a_child_is_undone(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    with OperatorProcess(control_plane, "drift"):
        kubectl.apply(example("digits.yaml"), namespace=namespace)
        (job,) = play.wait_for("jobs")
        play.end_job(job)
        play.wait_for("deployments.apps")
        (service,) = play.wait_for("services")
        patch = json.dumps({"spec": {"selector": {"app": "other"}}})
        kubectl("patch", "service", "digits", "--namespace", namespace, "--type=merge", f"--patch={patch}")
        play.wait("the selector", lambda: _selector(play) >= set(service["spec"]["selector"].items()))
        kubectl("delete", "pdb", "digits", "--namespace", namespace)
        play.wait_for("pdb")


def _selector(play):
    return set(play.one("services")["spec"]["selector"].items())


def test_an_object_of_somebody_else_is_not_taken(control_plane, kubectl, namespace):
    play = Play(kubectl, namespace)
    kubectl("create", "service", "clusterip", "digits", "--tcp=80:80", "--namespace", namespace)
    with OperatorProcess(control_plane, "guest"):
        kubectl.apply(example("digits.yaml"), namespace=namespace)
        (job,) = play.wait_for("jobs")
        play.end_job(job)
        play.wait("the refusal", lambda: play.said("dd") == ("False", "ApplyRefused"))
    assert "Service digits is there already" in play.one("dd")["status"]["conditions"][0]["message"]
    assert play.one("services")["spec"]["selector"] == {"app": "digits"}
