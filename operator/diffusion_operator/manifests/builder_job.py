"""The Job that builds an engine on the accelerator it is for, and the ConfigMap with its job file."""

from __future__ import annotations

import hashlib
import json

from diffusion_api.build_job import BuildJob
from diffusion_api.engine import DiffusionEngineSpec
from diffusion_api.model_spec import ModelSource
from diffusion_operator.manifests.accelerator import container_resources
from diffusion_operator.manifests.base import Manifest, Owner, child, without_none
from diffusion_operator.manifests.builder_exit import BUILDER, pod_failure_policy
from diffusion_operator.manifests.engine_store import STORE_PATH, store_env, store_env_from, store_mount, store_volume
from diffusion_operator.manifests.labels import engine_labels
from diffusion_operator.manifests.pods import container, pod_spec, requests_and_limits, variable
from diffusion_operator.settings import OperatorSettings

JOB_FOLDER = "/job"
JOB_FILE = "job.json"  # JSON is YAML.
CREDENTIALS_FOLDER = "/credentials"
CREDENTIALS_VARIABLE = "DIFFUSION_CREDENTIALS_DIR"
PVC_ROOT = "/claims"
PVC_ROOT_VARIABLE = "DIFFUSION_PVC_ROOT"
CACHE_FOLDER = "/tmp/cache"  # noqa: S108  # An emptyDir of the pod.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def job_config_map(name: str, owner: Owner, job: BuildJob) -> Manifest:
    """Build the ConfigMap with the job file. A file and not an argument, for prompts may be long; immutable, as the engine is.

    Its name carries a digest: where an engine is built again, a later release or other prompts may give another file, and the API
    server refuses a change of the one that is there.

    Args:
        name: Name of the Job, with which its own begins.
        owner: The DiffusionEngine.
        job: What the file says.
    """
    text = json.dumps(job.to_wire(), indent=2, ensure_ascii=False)
    full_name = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return child("v1", "ConfigMap", full_name, owner, engine_labels(owner.name), immutable=True, data={JOB_FILE: text})


def builder_job(name: str, owner: Owner, spec: DiffusionEngineSpec, settings: OperatorSettings, *, config_map: str = "") -> Manifest:
    """Build the Job. Apply it once only: Kueue and the Job controller change `suspend` afterwards.

    Args:
        name: Name of the Job and of its ResourceClaimTemplate.
        owner: The DiffusionEngine.
        spec: Its spec.
        settings: The operator's.
        config_map: Name of the ConfigMap with the job file; empty: the Job's.
    """
    policy = settings.build
    labels = engine_labels(owner.name)
    job_spec = without_none(
        {
            "backoffLimit": policy.backoff_limit,
            "activeDeadlineSeconds": policy.deadline_seconds,
            "ttlSecondsAfterFinished": policy.ttl_seconds,
            "suspend": True if policy.queue_name else None,
            "podFailurePolicy": pod_failure_policy(),
            "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(name, spec, settings, owner.namespace, config_map or name)},
        }
    )
    queue = {QUEUE_LABEL: policy.queue_name} if policy.queue_name else {}
    return child("batch/v1", "Job", name, owner, {**labels, **queue}, spec=job_spec)


def claims_of(model: ModelSource) -> tuple[str, ...]:
    """Names of the claims that a model's `pvc://` addresses name, in order, each once."""
    uris = [model.uri, *([model.student.uri] if model.student else [])]
    return tuple(dict.fromkeys(uri.removeprefix("pvc://").partition("/")[0] for uri in uris if uri.startswith("pvc://")))


def _pod(name: str, spec: DiffusionEngineSpec, settings: OperatorSettings, namespace: str, config_map: str) -> Manifest:
    return pod_spec(
        spec.accelerator,
        settings,
        containers=[_container(spec, settings, namespace)],
        volumes=[store_volume(settings), {"name": "job", "configMap": {"name": config_map}}, *_model_volumes(spec.model)],
        claim_template=name,
        restartPolicy="Never",  # podFailurePolicy knows no other.
        terminationGracePeriodSeconds=settings.build.grace_seconds,
    )


def _container(spec: DiffusionEngineSpec, settings: OperatorSettings, namespace: str) -> Manifest:
    env = [
        variable("HOME", CACHE_FOLDER),
        variable("XDG_CACHE_HOME", CACHE_FOLDER),
        variable("HF_HUB_DISABLE_TELEMETRY", "1"),
        variable("PYTHONUNBUFFERED", "1"),
        *store_env(settings, namespace),
    ]
    mounts = [store_mount(read_only=False), {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True}]
    if spec.model.secret_name:
        env.append(variable(CREDENTIALS_VARIABLE, CREDENTIALS_FOLDER))
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True})
    claims = claims_of(spec.model)
    if claims:
        env.append(variable(PVC_ROOT_VARIABLE, PVC_ROOT))
    mounts += [{"name": f"claim-{index}", "mountPath": f"{PVC_ROOT}/{claim}", "readOnly": True} for index, claim in enumerate(claims)]
    requests, limits = requests_and_limits(settings.build.resources)
    return container(
        BUILDER,
        spec.builder_image or settings.images.builder,
        settings,
        env=env,
        mounts=mounts,
        envFrom=store_env_from(settings),
        command=["python3", "-m", "engine_builder"],
        args=["build", f"{JOB_FOLDER}/{JOB_FILE}", "--store", STORE_PATH],
        resources=container_resources(spec.accelerator, settings, requests, limits),
    )


def _model_volumes(model: ModelSource) -> list[Manifest]:
    secret = [{"name": "credentials", "secret": {"secretName": model.secret_name, "defaultMode": 0o440}}] if model.secret_name else []
    claims = [
        {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for index, claim in enumerate(claims_of(model))
    ]
    return [*secret, *claims]
