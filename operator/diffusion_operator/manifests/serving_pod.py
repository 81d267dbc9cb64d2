"""The pod that serves one revision: an init container that checks and links the engine, and Triton.

Nothing in the template may depend on the number of replicas or on what a reconcile finds: a changed template restarts pods.
"""

from __future__ import annotations

import json
import math

from diffusion_api.accelerator import Accelerator
from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.accelerator import container_resources
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.engine_store import STORE_PATH, store_env, store_env_from, store_mount, store_volume
from diffusion_operator.manifests.labels import revision_labels, revision_selector
from diffusion_operator.manifests.pods import container, pod_spec, requests_and_limits, variable
from diffusion_operator.settings import UNLOAD_SECONDS, OperatorSettings, PvcStore

TRITON = "triton"
PREPARE = "prepare-engine"
MODELS_PATH = "/models"
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
SETUP_PERIOD_SECONDS = 10
# What a client has no business with: it could load models, read or write the server's shared memory, or change its logging.
RESTRICTED_APIS = "model-repository,shared-memory,trace,logging"


def serving_pod_template(
    deployment: str,
    spec: DiffusionDeploymentSpec,
    settings: OperatorSettings,
    *,
    namespace: str,
    revision: str,
    engine: str,
    artifact: str,
) -> Manifest:
    """Build the pod template of a revision.

    Args:
        deployment: Name of the DiffusionDeployment.
        spec: Its spec.
        settings: The operator's.
        namespace: Its namespace.
        revision: Name of the revision.
        engine: Name of the DiffusionEngine.
        artifact: Path of the engine below the store.
    """
    accelerator = spec.accelerator
    pod = pod_spec(
        accelerator,
        settings,
        containers=[triton_container(accelerator, settings, startup_seconds=spec.serving.startup_timeout_seconds)],
        volumes=[
            store_volume(settings),
            {"name": "models", "emptyDir": {}},
            # The runtime's own 64 MiB are less than one batch of latents.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.serving.shm_size}},
        ],
        claim_template=revision,
        initContainers=[prepare_container(artifact, spec, settings, namespace)],
        terminationGracePeriodSeconds=settings.grace_period_seconds,
        topologySpreadConstraints=_spread(deployment, revision, settings) or None,
    )
    return {"metadata": {"labels": revision_labels(deployment, revision, engine)}, "spec": pod}


def prepare_container(artifact: str, spec: DiffusionDeploymentSpec, settings: OperatorSettings, namespace: str) -> Manifest:
    """Build the init container.

    It brings the engine where the store is a bucket, of which the pod then has a copy that this container alone may write. It checks
    that the engine's files are whole, that this image's TensorRT and this node's GPU are those it was compiled for, and links the
    read-only repository into `/models` with this deployment's batching. It needs the GPU to look at it.
    """
    requests, limits = requests_and_limits(settings.serving.resources)
    command = ["python3", "-m", "engine_runtime.triton.prepare", "--engine", f"{STORE_PATH}/{artifact}", "--models", MODELS_PATH]
    command += ["--serving", json.dumps(spec.serving.to_wire(), sort_keys=True)]
    if spec.accelerator.resolved_compute_capability is not None:
        command += ["--compute-capability", spec.accelerator.resolved_compute_capability]
    return container(
        PREPARE,
        triton_image(spec.accelerator, settings),
        settings,
        env=store_env(settings, namespace),
        mounts=[store_mount(read_only=isinstance(settings.engine_store, PvcStore)), {"name": "models", "mountPath": MODELS_PATH}],
        envFrom=store_env_from(settings),
        command=command,
        resources=container_resources(spec.accelerator, settings, requests, limits),
    )


def triton_container(accelerator: Accelerator, settings: OperatorSettings, *, startup_seconds: int) -> Manifest:
    """Build Triton's container.

    Its end takes three steps, whose sum is the grace period: `preStop` sleeps while endpoints forget the pod, then waits until its
    requests are done, for Triton fails new and running ones from SIGTERM on; what remains is for unloading.
    """
    requests, limits = requests_and_limits(settings.serving.resources)
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "timeoutSeconds": 5}
    live = {"httpGet": {"path": "/v2/health/live", "port": "http"}, "timeoutSeconds": 10}
    return container(
        TRITON,
        triton_image(accelerator, settings),
        settings,
        env=[{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}, variable("HOME", "/tmp")],  # noqa: S108
        mounts=[store_mount(read_only=True), _read_only("models", MODELS_PATH), {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
        command=["tritonserver"],
        args=triton_arguments(settings.serving.pre_stop_seconds),
        ports=[
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        startupProbe={
            **ready,
            "periodSeconds": SETUP_PERIOD_SECONDS,
            "failureThreshold": math.ceil(startup_seconds / SETUP_PERIOD_SECONDS),
        },
        readinessProbe={**ready, "periodSeconds": 5},
        livenessProbe=live,
        lifecycle={"preStop": {"exec": {"command": drain_command(settings)}}},
        resources=container_resources(accelerator, settings, requests, limits),
    )


def drain_command(settings: OperatorSettings) -> list[str]:
    """Return the command of `preStop`."""
    serving = settings.serving
    waits = [f"--sleep-seconds={serving.pre_stop_seconds}", f"--timeout-seconds={serving.exit_timeout_seconds}"]
    return ["python3", "-m", "engine_runtime.triton.drain", *waits, f"--metrics-url=http://localhost:{METRICS_PORT}/metrics"]


def triton_arguments(pre_stop_seconds: int) -> list[str]:
    """Return the arguments of `tritonserver`.

    What is restricted needs the pod's uid as a key, which clients do not know. Clients must open their gRPC connections anew twice
    while a pod leaves, else one that never does would ask it to the end; so they come to new replicas too. Running requests end first.

    Args:
        pre_stop_seconds: Time from a pod's leaving the Service to its last request; 0: clients may keep their connections.
    """
    connection_age = [f"--grpc-max-connection-age={pre_stop_seconds * 1000 // 2}"] if pre_stop_seconds else []
    return [
        f"--model-repository={MODELS_PATH}",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={UNLOAD_SECONDS}",
        *connection_age,
        f"--http-port={HTTP_PORT}",
        f"--grpc-port={GRPC_PORT}",
        f"--metrics-port={METRICS_PORT}",
        f"--http-restricted-api={RESTRICTED_APIS}:diffusion-operator-key=$(POD_UID)",
        f"--grpc-restricted-protocol={RESTRICTED_APIS}:diffusion-operator-key=$(POD_UID)",
    ]


def triton_image(accelerator: Accelerator, settings: OperatorSettings) -> str:
    """Image that serves engines of an accelerator."""
    return settings.images.triton_cpu if accelerator.is_cpu else settings.images.triton_gpu


def _spread(deployment: str, revision: str, settings: OperatorSettings) -> list[Manifest]:
    return [
        {
            "topologyKey": key,
            "maxSkew": 1,
            # GPUs are scarce: spreading must never keep a pod from starting.
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": revision_selector(deployment, revision)},
        }
        for key in settings.serving.topology_keys
    ]


def _read_only(volume: str, path: str) -> Manifest:
    return {"name": volume, "mountPath": path, "readOnly": True}
