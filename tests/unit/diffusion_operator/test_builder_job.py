from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from diffusion_api.build_job import BuildJob
from diffusion_api.parsing import parse_build_job
from diffusion_operator.manifests.builder_exit import BuilderExit, is_retryable
from diffusion_operator.manifests.builder_job import builder_job, job_config_map
from diffusion_operator.manifests.cleanup_job import cleanup_job
from diffusion_operator.manifests.engine import diffusion_engine
from diffusion_operator.manifests.engine_store import engine_store_claim, have_one_store
from diffusion_operator.manifests.network_policy import builder_network_policy
from diffusion_operator.settings import PvcStore
from engine_builder import errors
from tests.unit.diffusion_operator.scenes import OWNER, SETTINGS, engine, settings


def job(options=SETTINGS, **changes):
    return builder_job("engine-1", OWNER, engine(**changes).spec, options)


def builder(manifest):
    return manifest["spec"]["template"]["spec"]["containers"][0]


def test_exit_codes_are_the_builder_s():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.BuildError)]
    by_code = {each.exit_code: issubclass(each, errors.TransientError) for each in classes}
    assert {code.value: code.is_retryable for code in BuilderExit if code is not BuilderExit.USAGE} == by_code


def test_only_what_can_get_better_is_retried():
    ignore, fail = job()["spec"]["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail == {"action": "FailJob", "onExitCodes": {"containerName": "builder", "operator": "In", "values": [2, 64, 65, 66, 69, 70]}}
    assert job()["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert builder(job())["name"] == "builder"


def test_an_unknown_end_is_retryable():
    assert is_retryable(None)
    assert is_retryable(137)
    assert not is_retryable(65)


def test_deadline_attempts_and_ttl_come_from_the_settings():
    spec = job(settings(build={"backoffLimit": 1, "deadlineSeconds": 90, "ttlSeconds": 5}))["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (1, 90, 5)


def test_kueue_gets_a_suspended_job_with_its_queue():
    queued = job(settings(build={"queueName": "gpus"}))
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "suspend" not in job()["spec"]


def test_the_job_file_is_the_engine_s_job():
    manifest = job_config_map("engine-1", OWNER, engine().spec.job)
    assert manifest["immutable"] is True
    parsed = parse_build_job(json.loads(manifest["data"]["job.json"]))
    assert isinstance(parsed, BuildJob)
    assert parsed == engine().spec.job
    assert builder(job())["args"] == ["build", "/job/job.json", "--store", "/engine-store"]


def test_a_secret_is_mounted_where_the_builder_reads_it():
    manifest = job(model={"uri": "hf://owner/name", "secretName": "hf-token"})
    assert {"name": "DIFFUSION_CREDENTIALS_DIR", "value": "/credentials"} in builder(manifest)["env"]
    assert {"name": "credentials", "mountPath": "/credentials", "readOnly": True} in builder(manifest)["volumeMounts"]
    volumes = manifest["spec"]["template"]["spec"]["volumes"]
    assert {"name": "credentials", "secret": {"secretName": "hf-token", "defaultMode": 0o440}} in volumes
    assert "DIFFUSION_CREDENTIALS_DIR" not in str(job())


def test_a_model_on_a_claim_is_mounted_read_only_under_its_name():
    student = {"uri": "pvc://weights/student.pth"}
    manifest = job(model={"uri": "pvc://weights/klein", "student": student})
    assert {"name": "DIFFUSION_PVC_ROOT", "value": "/claims"} in builder(manifest)["env"]
    mounts = [mount for mount in builder(manifest)["volumeMounts"] if mount["mountPath"].startswith("/claims")]
    assert mounts == [{"name": "claim-0", "mountPath": "/claims/weights", "readOnly": True}]
    claim = {"name": "claim-0", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}
    assert claim in manifest["spec"]["template"]["spec"]["volumes"]


def test_the_engine_s_own_builder_image_goes_before_the_operator_s():
    assert builder(job(builderImage="other/builder@sha256:12"))["image"] == "other/builder@sha256:12"
    assert builder(job())["image"] == SETTINGS.images.builder


def test_a_store_in_a_bucket_gives_address_and_credentials():
    options = settings(engineStore={"kind": "S3", "uri": "s3://models/engines", "secretName": "s3"})
    manifest = job(options)
    assert {"name": "DIFFUSION_STORE_URI", "value": "s3://models/engines/namespaces/pictures"} in builder(manifest)["env"]
    assert builder(manifest)["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "persistentVolumeClaim" not in str(manifest)


@pytest.mark.parametrize(
    ("shared", "places"),
    [
        ((), ("namespaces/pictures", "namespaces/videos", "namespaces/others")),
        (("pictures", "videos"), ("shared", "shared", "namespaces/others")),
        (("*",), ("shared", "shared", "shared")),
    ],
)
def test_namespaces_share_engines_of_a_bucket_only_where_they_are_allowed(shared, places):
    store = {"kind": "S3", "uri": "s3://models/engines/", "sharedNamespaces": shared}
    options = settings(engineStore=store)
    found = []
    for namespace in ("pictures", "videos", "others"):
        owner = replace(OWNER, namespace=namespace)
        for manifest in (builder_job("engine-1", owner, engine().spec, options), cleanup_job("cleanup-1", owner, "artifacts/e", options)):
            (uri,) = [each["value"] for each in builder(manifest)["env"] if each["name"] == "DIFFUSION_STORE_URI"]
            found.append(uri.removeprefix("s3://models/engines/"))
    assert found == [place for place in places for _ in range(2)]
    together = [have_one_store(options, "pictures", other) for other in ("pictures", "videos", "others")]
    assert together == [True, places[1] == places[0], places[2] == places[0]]


def test_a_claim_is_a_namespace_s_own():
    assert have_one_store(SETTINGS, "pictures", "pictures")
    assert not have_one_store(SETTINGS, "pictures", "videos")


@pytest.mark.parametrize("namespace", ["", "Pictures", "a/b", "..", "pic*", "a_b", "-a"])
def test_what_is_no_namespace_cannot_share(namespace):
    with pytest.raises(ValidationError, match="sharedNamespaces"):
        settings(engineStore={"kind": "S3", "uri": "s3://models", "sharedNamespaces": [namespace]})


def test_the_store_s_claim_outlives_every_owner():
    claim = engine_store_claim("pictures", PvcStore(storage_class="nfs"))
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "200Gi"}},
        "storageClassName": "nfs",
    }
    assert "storageClassName" not in engine_store_claim("pictures", PvcStore())["spec"]


def test_an_engine_belongs_to_nobody_and_says_who_manages_it():
    manifest = diffusion_engine("engine-1", OWNER, engine().spec)
    assert "ownerReferences" not in manifest["metadata"]
    assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "diffusion-operator"
    assert manifest["spec"]["accelerator"]["product"] == "NVIDIA-B200"


def test_nobody_reaches_a_builder():
    policy = builder_network_policy(OWNER)
    assert policy["spec"]["ingress"] == []
    assert policy["metadata"]["name"] == f"{OWNER.name}-builder"


def test_the_cleaner_removes_one_artifact():
    manifest = cleanup_job("engine-1-cleanup", OWNER, "artifacts/engine-1", SETTINGS)
    command = builder(manifest)["command"]
    assert command == ["python3", "-m", "engine_builder", "remove", "artifacts/engine-1", "--store", "/engine-store"]
