"""What holds for every pod that the operator makes."""

from __future__ import annotations

import pytest

from diffusion_api.accelerator import Accelerator
from diffusion_operator.manifests.accelerator import device_expression, gpu_resource, node_selector, resource_claim_template
from diffusion_operator.manifests.builder_job import builder_job
from diffusion_operator.manifests.cleanup_job import cleanup_job
from diffusion_operator.manifests.serving_pod import serving_pod_template
from diffusion_operator.settings import DynamicResources
from tests.unit.diffusion_operator.scenes import B200_LABELS, OWNER, SETTINGS, deployment, engine, paths, settings

VOLUMES_OF_THE_RESTRICTED_PROFILE = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def pod_specs(options):
    """The builder's, the server's and the cleaner's pod."""
    return {name: template["spec"] for name, template in pod_templates(options).items()}


def pod_labels(options):
    return {name: template["metadata"]["labels"] for name, template in pod_templates(options).items()}


def pod_templates(options):
    spec = deployment().spec
    template = serving_pod_template(
        "klein", spec, options, namespace="pictures", revision="klein-1", engine="engine-1", artifact="artifacts/e"
    )
    jobs = {
        "build": builder_job("engine-1", OWNER, engine().spec, options),
        "cleanup": cleanup_job("engine-1", OWNER, "artifacts/e", options),
    }
    return {"serving": template, **{name: job["spec"]["template"] for name, job in jobs.items()}}


def containers(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("kind", ["serving", "build", "cleanup"])
class TestEveryPod:
    def test_obeys_the_restricted_profile(self, kind):
        pod = pod_specs(SETTINGS)[kind]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
        assert kinds <= VOLUMES_OF_THE_RESTRICTED_PROFILE

    def test_has_no_service_account_token(self, kind):
        assert pod_specs(SETTINGS)[kind]["automountServiceAccountToken"] is False

    def test_mounts_only_volumes_that_it_has(self, kind):
        options = settings(caConfigMap="corporate-ca")
        pod = pod_specs(options)[kind]
        names = [volume["name"] for volume in pod["volumes"]]
        assert len(names) == len(set(names))
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(names)

    def test_takes_the_installation_s_settings(self, kind):
        options = settings(
            images={"registry": "mirror.example", "pullSecrets": ["regcred"], "pullPolicy": "Always"},
            tolerations=[{"key": "gpu", "operator": "Exists"}],
            nodeSelector={"pool": "images"},
            priorityClassName="high",
            schedulerName="other",
            env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            caConfigMap="corporate-ca",
        )
        pod = pod_specs(options)[kind]
        assert pod["imagePullSecrets"] == [{"name": "regcred"}]
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert pod["nodeSelector"]["pool"] == "images"
        assert (pod["priorityClassName"], pod["schedulerName"]) == ("high", "other")
        for container in containers(pod):
            assert container["image"].startswith("mirror.example/")
            assert container["imagePullPolicy"] == "Always"
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert env["HTTPS_PROXY"] == "http://proxy:3128"
            assert env["SSL_CERT_FILE"] == "/etc/diffusion-ca/ca.crt"

    def test_has_each_variable_once_and_the_installation_s_wins(self, kind):
        options = settings(
            env=[{"name": "SSL_CERT_FILE", "value": "/mine"}, {"name": "HOME", "value": "/home"}], caConfigMap="corporate-ca"
        )
        for container in containers(pod_specs(options)[kind]):
            names = [entry["name"] for entry in container["env"]]
            assert len(names) == len(set(names))
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert (env["SSL_CERT_FILE"], env["HOME"]) == ("/mine", "/home")

    def test_goes_to_the_node_of_a_store_that_one_node_can_mount(self, kind):
        store = {"kind": "PersistentVolumeClaim", "accessMode": "ReadWriteOnce"}
        (term,) = pod_specs(settings(engineStore=store))[kind]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        labels = pod_labels(settings(engineStore=store))[kind]
        assert term["labelSelector"]["matchLabels"].items() <= labels.items(), "else the first pod could never start"

    def test_goes_anywhere_where_many_nodes_can_mount_the_store(self, kind):
        assert "affinity" not in pod_specs(SETTINGS)[kind]

    def test_holds_no_null_and_is_new_at_each_call(self, kind):
        pod, again = pod_specs(SETTINGS)[kind], pod_specs(SETTINGS)[kind]
        assert None not in paths(pod).values()
        pod["tolerations"][0]["key"] = "changed"
        pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
        assert pod_specs(SETTINGS)[kind] == again


@pytest.mark.parametrize("kind", ["serving", "build"])
def test_gpu_pods_are_bound_to_the_exact_product_and_capability(kind):
    pod = pod_specs(SETTINGS)[kind]
    assert pod["nodeSelector"] == B200_LABELS
    assert all(container["resources"]["limits"]["nvidia.com/gpu"] == "1" for container in containers(pod))


def test_the_cleaner_takes_no_gpu():
    assert "nvidia" not in str(paths(pod_specs(settings(tolerations=[]))["cleanup"]))


@pytest.mark.parametrize(
    ("accelerator", "resource"),
    [
        (Accelerator(product="NVIDIA-B200"), "nvidia.com/gpu"),
        (Accelerator(product="NVIDIA-B200", mig_profile="1g.23gb"), "nvidia.com/mig-1g.23gb"),
        (Accelerator(product="NVIDIA-B200-MIG-1g.23gb", mig_profile="1g.23gb"), "nvidia.com/gpu"),
    ],
)
def test_mig_slices_have_the_resource_of_their_strategy(accelerator, resource):
    assert gpu_resource(accelerator) == resource


def test_a_cpu_needs_no_label():
    assert node_selector(Accelerator(product="CPU"), SETTINGS) == {}


def test_under_dra_a_claim_replaces_resource_and_node_labels():
    pod = pod_specs(settings(dynamicResources={"enabled": True}))["serving"]
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "klein-1"}]
    assert "nodeSelector" not in pod
    assert all(container["resources"]["claims"] == [{"name": "gpu"}] for container in containers(pod))
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_a_claim_names_product_capability_and_slice():
    sliced = Accelerator(product="NVIDIA-B200", mig_profile="1g.23gb")
    manifest = resource_claim_template("klein-1", OWNER, {}, sliced, DynamicResources())
    request = manifest["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert request["deviceClassName"] == "mig.nvidia.com"
    assert request["selectors"][0]["cel"]["expression"] == (
        'device.attributes["gpu.nvidia.com"].productName.replace(" ", "-") == "NVIDIA-B200"'
        ' && device.attributes["gpu.nvidia.com"].cudaComputeCapability.compareTo(semver("10.0.0")) == 0'
        ' && device.attributes["gpu.nvidia.com"].profile == "1g.23gb"'
    )
    assert "profile" not in device_expression(Accelerator(product="NVIDIA-B200"), DynamicResources())
