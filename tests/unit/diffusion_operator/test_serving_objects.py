from __future__ import annotations

import json
from dataclasses import replace

import pytest

from diffusion_api.serving import Autoscaling
from diffusion_operator.manifests.autoscalers import horizontal_pod_autoscaler, scaled_object
from diffusion_operator.manifests.base import Ref, ref_of
from diffusion_operator.manifests.controller_revision import RevisionRecord, controller_revision, revision_record
from diffusion_operator.manifests.labels import selector_text, serving_labels, serving_selector
from diffusion_operator.manifests.network_policy import serving_network_policy
from diffusion_operator.manifests.pod_disruption_budget import pod_disruption_budget
from diffusion_operator.manifests.pod_monitor import pod_monitor
from diffusion_operator.manifests.service import service
from diffusion_operator.manifests.serving_deployment import serving_deployment
from diffusion_operator.manifests.serving_pod import serving_pod_template
from diffusion_operator.settings import Scaling
from tests.unit.diffusion_operator.scenes import NOW, OWNER, SETTINGS, deployment, settings


def template(options=SETTINGS, **changes):
    spec = deployment(**changes).spec
    return serving_pod_template(
        "klein", spec, options, namespace="pictures", revision="klein-1", engine="engine-1", artifact="artifacts/engine-1"
    )


def record(**changes) -> RevisionRecord:
    made = RevisionRecord("klein-1", 3, "engine-1", "key", template(), {"model": {"uri": "hf://owner/name"}}, NOW)
    return replace(made, **changes)


def triton(pod):
    return pod["spec"]["containers"][0]


def test_the_startup_budget_is_the_spec_s():
    probe = triton(template(serving={"startupTimeoutSeconds": 605}))["startupProbe"]
    assert probe["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 605
    assert (probe["failureThreshold"] - 1) * probe["periodSeconds"] < 605


def test_a_leaving_pod_has_time_to_be_forgotten_and_to_finish():
    pod = template(settings(serving={"preStopSeconds": 20, "exitTimeoutSeconds": 200}))
    command = triton(pod)["lifecycle"]["preStop"]["exec"]["command"]
    assert {"engine_runtime.triton.drain", "--sleep-seconds=20", "--timeout-seconds=200"} <= set(command)
    (unloading,) = [int(each.split("=")[1]) for each in triton(pod)["args"] if each.startswith("--exit-timeout-secs=")]
    assert pod["spec"]["terminationGracePeriodSeconds"] > 20 + 200 + unloading


def test_clients_open_connections_anew_before_a_leaving_pod_stops_taking_requests():
    assert "--grpc-max-connection-age=10000" in triton(template(settings(serving={"preStopSeconds": 20})))["args"]
    at_once = triton(template(settings(serving={"preStopSeconds": 0})))["args"]
    assert not any("connection-age" in argument for argument in at_once)


def test_triton_loads_nothing_at_run_time_and_guards_its_admin_interfaces():
    arguments = triton(template())["args"]
    assert "--model-control-mode=none" in arguments
    assert "--strict-readiness=true" in arguments
    restricted = [argument for argument in arguments if "restricted" in argument]
    assert len(restricted) == 2
    assert all("shared-memory" in argument and argument.endswith("$(POD_UID)") for argument in restricted)
    assert "POD_UID" in {entry["name"] for entry in triton(template())["env"]}


def test_the_engine_is_read_only_and_shared_memory_is_memory():
    pod = template()
    mounts = {mount["mountPath"]: mount for mount in triton(pod)["volumeMounts"]}
    assert mounts["/engine-store"]["readOnly"] is True
    assert mounts["/models"]["readOnly"] is True
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert mounts["/dev/shm"]["name"] == "shm"


def test_the_init_container_gets_engine_capability_and_serving_settings():
    container = template(serving={"maxBatchSize": 4})["spec"]["initContainers"][0]
    command = container["command"]
    assert command[command.index("--engine") + 1] == "/engine-store/artifacts/engine-1"
    assert command[command.index("--compute-capability") + 1] == "10.0"
    assert json.loads(command[command.index("--serving") + 1])["maxBatchSize"] == 4
    assert container["image"] == triton(template())["image"]


def test_an_engine_in_a_bucket_is_brought_by_the_init_container_alone():
    bucket = settings(engineStore={"kind": "S3", "uri": "s3://models", "secretName": "s3", "scratchSize": "50Gi"})
    pod = template(bucket)
    (prepare,) = pod["spec"]["initContainers"]
    assert {"name": "DIFFUSION_STORE_URI", "value": "s3://models/namespaces/pictures"} in prepare["env"]
    assert prepare["envFrom"] == [{"secretRef": {"name": "s3"}}]
    (written,) = [mount for mount in prepare["volumeMounts"] if mount["mountPath"] == "/engine-store"]
    assert "readOnly" not in written
    (read,) = [mount for mount in triton(pod)["volumeMounts"] if mount["mountPath"] == "/engine-store"]
    assert read["readOnly"] is True
    assert "envFrom" not in triton(pod)
    assert "DIFFUSION_STORE_URI" not in str(triton(pod))
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "engine-store"]
    assert volume["emptyDir"] == {"sizeLimit": "50Gi"}


def test_an_engine_on_a_claim_is_read_only_to_every_container():
    (prepare,) = template()["spec"]["initContainers"]
    (mount,) = [mount for mount in prepare["volumeMounts"] if mount["mountPath"] == "/engine-store"]
    assert mount["readOnly"] is True


def test_a_cpu_engine_is_served_by_the_cpu_image():
    pod = template(accelerator={"product": "CPU"})
    assert triton(pod)["image"] == SETTINGS.images.triton_cpu
    assert "--compute-capability" not in pod["spec"]["initContainers"][0]["command"]


def test_replicas_do_not_change_the_template():
    assert template(replicas=5, autoscaling={"maxReplicas": 8}) == template()


def test_spreading_never_keeps_a_pod_from_starting():
    constraints = template()["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in constraints} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert {each["whenUnsatisfiable"] for each in constraints} == {"ScheduleAnyway"}


def test_a_deployment_takes_its_template_from_the_record_and_never_surges():
    manifest = serving_deployment(OWNER, record(), 4)
    assert manifest["spec"]["template"] == template()
    assert manifest["spec"]["strategy"] == {"type": "Recreate"}
    assert manifest["spec"]["replicas"] == 4
    selector = manifest["spec"]["selector"]["matchLabels"]
    assert selector.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    assert ref_of(manifest) == Ref("apps/v1", "Deployment", "pictures", "klein-1")


def test_a_deployment_s_template_is_a_copy():
    kept = record()
    serving_deployment(OWNER, kept, 1)["spec"]["template"]["spec"]["containers"].clear()
    assert kept.template["spec"]["containers"]


FATES = [
    {},
    {"good": True, "proven": True},
    {"proven": True},
    {"held": True},
    {"abandoned": "no pod became ready"},
    {"base": "klein-0123456789"},
]


@pytest.mark.parametrize("fate", FATES)
def test_a_record_is_read_back_as_it_was_written(fate):
    assert revision_record(controller_revision(OWNER, record(**fate))) == record(**fate)


def test_every_revision_s_pods_are_behind_the_service():
    selector = service(OWNER)["spec"]["selector"]
    assert selector == serving_selector("klein")
    assert selector.items() <= template()["metadata"]["labels"].items()
    assert selector_text(selector) == "app.kubernetes.io/component=serving,diffusionoperator.io/deployment=klein"
    names = {port["name"] for port in triton(template())["ports"]}
    assert {port["targetPort"] for port in service(OWNER)["spec"]["ports"]} <= names


def test_a_drain_is_never_blocked_for_ever():
    assert pod_disruption_budget(OWNER, 0)["spec"]["maxUnavailable"] == 1
    assert pod_disruption_budget(OWNER, 3)["spec"]["maxUnavailable"] == 3


def test_serving_pods_do_not_call_out_unless_the_engine_is_in_a_bucket():
    assert serving_network_policy(OWNER, SETTINGS)["spec"]["egress"] == []
    bucket = settings(engineStore={"kind": "S3", "uri": "s3://models"})
    assert serving_network_policy(OWNER, bucket)["spec"]["egress"] == [{}]
    ports = {port["port"] for port in serving_network_policy(OWNER, SETTINGS)["spec"]["ingress"][0]["ports"]}
    assert ports == {"http", "grpc", "metrics"}


def test_each_pod_s_metrics_are_scraped():
    assert pod_monitor(OWNER, SETTINGS)["spec"]["podMetricsEndpoints"] == [{"port": "metrics"}]


def test_a_pod_monitor_carries_the_labels_by_which_prometheus_selects_and_keeps_its_own():
    asked = {"release": "prometheus", "app.kubernetes.io/managed-by": "somebody"}
    labels = pod_monitor(OWNER, settings(podMonitorLabels=asked))["metadata"]["labels"]
    assert labels == {**serving_labels(OWNER.name), "release": "prometheus"}


def test_the_hpa_scales_the_resource_itself_on_pending_requests_per_pod():
    spec = horizontal_pod_autoscaler(OWNER, Autoscaling(min_replicas=0, max_replicas=8, target_pending_requests=2), Scaling())["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "diffusionoperator.io/v1alpha1", "kind": "DiffusionDeployment", "name": "klein"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 8)
    assert spec["metrics"][0]["pods"] == {
        "metric": {"name": "diffusion_pending_requests"},
        "target": {"type": "AverageValue", "averageValue": "2"},
    }


def test_keda_may_scale_to_zero():
    scaling = Scaling(prometheus_url="http://prometheus:9090")
    spec = scaled_object(OWNER, Autoscaling(min_replicas=0, max_replicas=8), scaling)["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 8)
    query = 'sum(diffusion_pending_requests{namespace="pictures",diffusionoperator_io_deployment="klein"})'
    assert spec["triggers"][0]["metadata"]["query"] == query
    with pytest.raises(ValueError, match="prometheus_url"):
        scaled_object(OWNER, Autoscaling(), Scaling())


def test_every_child_names_its_owner_and_who_manages_it():
    made = [
        service(OWNER),
        pod_disruption_budget(OWNER, 1),
        pod_monitor(OWNER, SETTINGS),
        serving_network_policy(OWNER, SETTINGS),
        controller_revision(OWNER, record()),
        serving_deployment(OWNER, record(), 1),
        horizontal_pod_autoscaler(OWNER, Autoscaling(), Scaling()),
    ]
    for manifest in made:
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "diffusion-operator"
        assert manifest["metadata"]["namespace"] == "pictures"
