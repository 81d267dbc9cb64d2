"""The product in the cluster as a user gets it: its own images, its chart by Helm, and namespaces of teams."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_operator.manifests.labels import DEPLOYMENT
from images.build import CACHE, ImageOptions, build_images
from tests.e2e.cluster import layout
from tests.e2e.cluster.images import image_names, import_image
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.cluster.programs import HELM
from tests.e2e.digits.load import RESTRICTED
from tests.e2e.digits.place import place

REPOSITORY = Path(__file__).parents[3]
CHART = REPOSITORY / "charts" / "diffusion-operator"
EXAMPLE = REPOSITORY / "examples" / "digits.yaml"
SYSTEM = "diffusion-operator-system"
RELEASE = "diffusion-operator"
CRDS = ("diffusiondeployments.diffusionoperator.io", "diffusionengines.diffusionoperator.io")
MODELS = "models"
PLACE = place(os.environ)
OPTIONS = PLACE.images
NEEDED = ("operator", "builder", "triton-cpu")
SMALL = {"cpu": "250m", "memory": "6Gi"}
# One node of two cores: a builder and two Triton pods must fit beside each other.
VALUES: Mapping[str, Any] = {
    "replicas": 1,
    "image": {"repository": OPTIONS.name("operator").rpartition(":")[0], "tag": OPTIONS.tag},
    "operator": {"resyncSeconds": 60},
    "settings": {
        "images": {"builder": OPTIONS.name("builder"), "tritonCpu": OPTIONS.name("triton-cpu")},
        "versions": {"openvino": "test"},
        "engineStore": PLACE.store("1Gi"),
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],  # Two threads on cores that are busy wait for each other.
        "build": {"resources": SMALL},
        "serving": {"resources": {"cpu": "100m", "memory": "2Gi"}, "shmSize": "256Mi", "preStopSeconds": 5, "exitTimeoutSeconds": 30},
    },
}


def provide_images(options: ImageOptions = OPTIONS, images: Iterable[str] = NEEDED) -> None:
    """Build images from their Dockerfiles, and import those that the cluster lacks or has in an older form."""
    folder = CACHE / "archives" / options.tag
    for archive in build_images(folder, options, images).values():
        imported = layout.RUN / f"{archive.stem}-{options.tag}.imported"
        identity = archive.with_suffix(".id").read_text()
        if not imported.is_file() or imported.read_text() != identity or options.name(archive.stem) not in image_names():
            import_image(archive)
            imported.write_text(identity)


def helm(kubectl: Kubectl, *arguments: str | Path) -> str:
    """Return what Helm prints.

    Raises:
        ClusterError: Helm failed; the message is its own.
    """
    command = [str(HELM.path if HELM.is_built() else shutil.which("helm") or "helm"), *map(str, arguments)]
    environment = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"helm {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def values(**settings: Mapping[str, Any]) -> dict[str, Any]:
    """`VALUES` with other settings laid over them, two levels deep."""
    over = {name: {**VALUES["settings"].get(name, {}), **part} for name, part in settings.items()}
    return {**VALUES, "settings": {**VALUES["settings"], **over}}


@contextmanager
def installed(kubectl: Kubectl, values: Mapping[str, Any] = VALUES) -> Iterator[None]:
    """Install the chart and wait for the operator; uninstall it afterwards, definitions included."""
    try:
        install(kubectl, values)
        yield
    finally:
        uninstall(kubectl)


def install(kubectl: Kubectl, values: Mapping[str, Any] = VALUES, chart: Path = CHART) -> None:
    """Install or upgrade the release and wait until it is ready."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        flags = ["--namespace", SYSTEM, "--create-namespace", "--values", file.name, "--wait", "--timeout", f"{PLACE.wait_seconds}s"]
        helm(kubectl, "upgrade", "--install", RELEASE, chart, *flags)


def uninstall(kubectl: Kubectl) -> None:
    """Remove the release, its namespace and its definitions, and with them whatever was made from them."""
    helm(kubectl, "uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait", "--timeout", "180s")
    kubectl("delete", "crd", "--ignore-not-found", *CRDS)
    kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait=true", "--timeout=120s")


def provide_namespace(kubectl: Kubectl, namespace: str) -> None:
    """Make a team's namespace; pods there are held to the restricted profile."""
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")


def remove_namespace(kubectl: Kubectl, namespace: str) -> None:
    """Remove a team's namespace, its pods and volumes first: one that still has some when Kubernetes looks is not looked at for a while."""
    kubectl.run("delete", "dd", "--all", "--namespace", namespace, "--timeout=120s")
    kubectl.run("wait", "--for=delete", "pod", f"--selector={DEPLOYMENT}", "--namespace", namespace, "--timeout=120s")
    kubectl.run("delete", "jobs,pods,pvc", "--all", "--namespace", namespace, "--timeout=120s")
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=240s")


def provide_checkpoint(kubectl: Kubectl, namespace: str) -> None:
    """Make the claim `models` with the digits checkpoint in it, as a team's own model volume would be; the builder image has it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": MODELS},
        "spec": PLACE.claim("100Mi"),
    }
    copier = {
        "name": "copy",
        "image": OPTIONS.name("builder"),
        "command": ["sh", "-c", 'cp -r "$DIFFUSION_FILES_DIR"/digits/digits-klein /models/'],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "securityContext": RESTRICTED,
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [copier],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": MODELS}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy-checkpoint"}, "spec": spec}
    kubectl.apply(claim, pod, namespace=namespace)
    kubectl.wait("jsonpath={.status.phase}=Succeeded", "pod/copy-checkpoint", namespace=namespace, seconds=PLACE.wait_seconds)
    kubectl("delete", "pod", "copy-checkpoint", "--namespace", namespace)
