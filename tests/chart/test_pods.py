"""Every pod that the chart makes, hooks included: the restricted profile, and what `everyPod` promises."""

from __future__ import annotations

import pytest

from tests.chart.rendering import VARIANTS, containers, of_kind, one, pods, render

RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
DEDICATED = {"key": "dedicated", "operator": "Equal", "value": "pictures", "effect": "NoSchedule"}


def test_pods_are_the_operator_and_the_hooks():
    names = [name for name, _ in pods(render("everything"))]
    assert names == [
        "Deployment/painter-diffusion-operator",
        "Job/painter-diffusion-operator-crds-apply",
        "Job/painter-diffusion-operator-crds-delete",
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_holds_the_restricted_profile(variant):
    # Source: Kubernetes, "Pod Security Standards", restricted.
    for name, pod in pods(render(variant)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= RESTRICTED_VOLUMES, name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert not context.get("privileged"), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_asks_for_resources_and_can_write_to_tmp(variant):
    for name, pod in pods(render(variant)):
        for container in containers(pod):
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


def test_the_registry_reaches_every_image_in_place_of_its_own():
    images = {container["image"] for _, pod in pods(render("everything")) for container in containers(pod)}
    assert images == {f"mirror.example/cache/team/operator@sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    ("repository", "image"),
    [
        ("team/operator", "m.example/a/team/operator:0.2.0"),
        ("operator", "m.example/a/operator:0.2.0"),
        ("localhost/operator", "m.example/a/operator:0.2.0"),
        ("host:5000/operator", "m.example/a/operator:0.2.0"),
    ],
)
def test_a_registry_goes_before_a_repository_without_one(repository, image):
    (container,) = containers(
        one(render("default", f"image.repository={repository}", "everyPod.registry=m.example/a/"), "Deployment")["spec"]["template"]["spec"]
    )
    assert container["image"] == image


def test_tolerations_labels_secrets_certificates_and_environment_reach_every_pod():
    for name, pod in pods(render("everything")):
        assert DEDICATED in pod["tolerations"], name
        assert {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"} in pod["tolerations"], name
        assert pod["nodeSelector"] == {"pool": "pictures", "system": "true"}, name
        assert pod["imagePullSecrets"] == [{"name": "mirror"}], name
        assert pod["priorityClassName"] == "system-cluster-critical", name
        assert {"name": "ca", "configMap": {"name": "corporate-ca"}} in pod["volumes"], name
        for container in containers(pod):
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert env["HTTPS_PROXY"] == "http://proxy.example:3128", name
            assert env["SSL_CERT_FILE"] == "/etc/diffusion-ca/ca.crt", name
            assert container["imagePullPolicy"] == "Always", name
            assert "/etc/diffusion-ca" in [mount["mountPath"] for mount in container["volumeMounts"]], name


TWICE = ("everyPod.env[0].name=SSL_CERT_FILE", "everyPod.env[0].value=/own.crt", "everyPod.env[1].name=A", "everyPod.env[1].value=first")
TWICE += ("everyPod.env[2].name=A", "everyPod.env[2].value=second", "everyPod.env[3].name=POD_NAME", "everyPod.env[3].value=mine")


def test_a_variable_that_is_named_twice_is_there_once_with_its_last_value():
    for name, pod in pods(render("default", "everyPod.caConfigMap=ca", *TWICE)):
        (container,) = containers(pod)
        env = {entry["name"]: entry for entry in container["env"]}
        assert len(env) == len(container["env"]), name
        assert env["SSL_CERT_FILE"] == {"name": "SSL_CERT_FILE", "value": "/own.crt"}, name
        assert env["A"]["value"] == "second", name
        # The Lease's holder is the pod, whatever else is asked for.
        assert ("valueFrom" in env["POD_NAME"]) == name.startswith("Deployment/"), name


def test_a_pod_is_told_of_its_settings_whatever_annotations_it_gets():
    def annotations(*settings):
        return one(render("default", *settings), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert annotations("podAnnotations.checksum/settings=none", "podAnnotations.note=yes") == {**annotations(), "note": "yes"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_common_labels_reach_every_object_and_never_a_selector(variant):
    manifests = render(variant)
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "diffusion-operator"
        assert labels.get("team") == ("pictures" if variant == "everything" else None)
        assert all(isinstance(value, str) for value in labels.values())
    deployment = one(manifests, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert "team" not in selector
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_what_selects_the_operator_selects_no_hook():
    manifests = render("everything")
    selector = one(manifests, "Deployment")["spec"]["selector"]["matchLabels"]
    assert one(manifests, "Service")["spec"]["selector"] == selector
    assert one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    assert one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector
    for job in of_kind(manifests, "Job"):
        assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_replicas_spread_as_asked_or_over_nodes():
    (spread,) = one(render(), "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    (asked,) = one(render("everything"), "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert asked["topologyKey"] == "topology.kubernetes.io/zone"
    assert asked["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


def test_a_single_replica_has_no_disruption_budget():
    assert not of_kind(render(), "PodDisruptionBudget")
