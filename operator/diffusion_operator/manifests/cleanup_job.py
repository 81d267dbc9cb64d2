"""The Job that takes an engine's files out of the store before the engine is deleted."""

from __future__ import annotations

from diffusion_api.accelerator import CPU, Accelerator
from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.engine_store import STORE_PATH, store_env, store_env_from, store_mount, store_volume
from diffusion_operator.manifests.labels import engine_labels
from diffusion_operator.manifests.pods import container, pod_spec, requests_and_limits
from diffusion_operator.settings import OperatorSettings, Resources

CLEANUP = "cleanup"


def cleanup_job(name: str, owner: Owner, artifact: str, settings: OperatorSettings) -> Manifest:
    """Build the Job; it needs no accelerator. `artifact` is the engine's path below the store."""
    requests, limits = requests_and_limits(Resources(cpu="100m", memory="256Mi"))
    remover = container(
        CLEANUP,
        settings.images.builder,
        settings,
        env=store_env(settings, owner.namespace),
        mounts=[store_mount(read_only=False)],
        envFrom=store_env_from(settings),
        command=["python3", "-m", "engine_builder", "remove", artifact, "--store", STORE_PATH],
        resources={"requests": requests, "limits": limits},
    )
    pod = pod_spec(
        Accelerator(product=CPU),
        settings,
        containers=[remover],
        volumes=[store_volume(settings)],
        claim_template=name,
        restartPolicy="Never",
    )
    labels = {**engine_labels(owner.name), "app.kubernetes.io/component": CLEANUP}
    spec = {
        "backoffLimit": 3,
        "activeDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 3600,
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
    }
    return child("batch/v1", "Job", name, owner, labels, spec=spec)
