"""Every field of every manifest exists in Kubernetes, with the right type: the generated client's models say which there are."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kubernetes import client

from diffusion_api.accelerator import Accelerator
from diffusion_api.serving import Autoscaling
from diffusion_operator.manifests.accelerator import resource_claim_template
from diffusion_operator.manifests.autoscalers import horizontal_pod_autoscaler
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.builder_job import builder_job, job_config_map
from diffusion_operator.manifests.cleanup_job import cleanup_job
from diffusion_operator.manifests.controller_revision import RevisionRecord, controller_revision
from diffusion_operator.manifests.engine_store import engine_store_claim
from diffusion_operator.manifests.network_policy import builder_network_policy, serving_network_policy
from diffusion_operator.manifests.pod_disruption_budget import pod_disruption_budget
from diffusion_operator.manifests.service import service
from diffusion_operator.manifests.serving_deployment import serving_deployment
from diffusion_operator.manifests.serving_pod import serving_pod_template
from diffusion_operator.settings import DynamicResources, PvcStore, Scaling
from tests.unit.diffusion_operator.scenes import NOW, OWNER, deployment, engine, settings

MODELS = {"HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler"}
SCALARS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
OPTIONS = settings(
    images={"pullSecrets": ["regcred"]},
    build={"queueName": "gpus"},
    nodeSelector={"pool": "images"},
    priorityClassName="high",
    runtimeClassName="nvidia",
    schedulerName="other",
    env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    caConfigMap="corporate-ca",
    dynamicResources={"enabled": True},
)


def manifests() -> list[Manifest]:
    template = serving_pod_template(
        "klein", deployment().spec, OPTIONS, namespace="pictures", revision="klein-1", engine="engine-1", artifact="artifacts/e"
    )
    record = RevisionRecord("klein-1", 1, "engine-1", "key", template, {}, NOW, good=True)
    model = {"uri": "pvc://weights/klein", "secretName": "token"}
    bucket = settings(engineStore={"kind": "S3", "uri": "s3://models", "secretName": "s3"})
    return [
        builder_job("engine-1", OWNER, engine(model=model).spec, OPTIONS),
        builder_job("engine-1", OWNER, engine().spec, bucket),
        cleanup_job("engine-1", OWNER, "artifacts/e", OPTIONS),
        job_config_map("engine-1", OWNER, engine().spec.job),
        controller_revision(OWNER, record),
        serving_deployment(OWNER, record, 2),
        service(OWNER),
        pod_disruption_budget(OWNER, 1),
        serving_network_policy(OWNER, bucket),
        builder_network_policy(OWNER),
        engine_store_claim("pictures", PvcStore(storage_class="nfs")),
        resource_claim_template("klein-1", OWNER, {}, Accelerator(product="NVIDIA-B200"), DynamicResources()),
        horizontal_pod_autoscaler(OWNER, Autoscaling(), Scaling()),
    ]


def problems(value: Any, type_name: str, path: str) -> list[str]:
    """What of a value is unknown to a model of the client, or of another type."""
    if match := re.fullmatch(r"[Ll]ist\[(.+)\]", type_name):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [each for index, item in enumerate(value) for each in problems(item, match[1], f"{path}[{index}]")]
    if match := re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", type_name):
        return [each for key, item in value.items() for each in problems(item, match[1], f"{path}.{key}")]
    if type_name in SCALARS:
        return [] if isinstance(value, SCALARS[type_name]) else [f"{path} is {type(value).__name__}, not {type_name}"]
    model = getattr(client, type_name, None)
    if model is None:  # `object`: anything, such as a ControllerRevision's data or a port's name or number.
        return []
    fields = {wire: model.openapi_types[name] for name, wire in model.attribute_map.items()}
    unknown = [f"{path}.{key} is unknown" for key in value if key not in fields]
    known = [each for key, item in value.items() if key in fields for each in problems(item, fields[key], f"{path}.{key}")]
    return unknown + known


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])
def test_kubernetes_knows_every_field(manifest):
    model = MODELS.get(manifest["kind"], f"V1{manifest['kind']}")
    assert hasattr(client, model)
    assert problems(manifest, model, manifest["kind"]) == []


def test_an_unknown_field_would_be_found():
    broken = service(OWNER)
    broken["spec"]["ports"][0]["targetport"] = "http"
    broken["spec"]["selector"] = {"a": 1}
    assert len(problems(broken, "V1Service", "Service")) == 2
