"""Where the product is tried: this machine's own cluster, or one of the user's, which variables describe. Reads nothing but these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from images.build import DEBIAN, ImageOptions

CLUSTER, REGISTRY, TAG = "E2E_KUBECONFIG", "E2E_REGISTRY", "E2E_TAG"
STORAGE_CLASS, ACCESS_MODE = "E2E_STORAGE_CLASS", "E2E_ACCESS_MODE"
PUSH = f"for image in operator builder triton-cpu; do \
docker build --file images/$image.Dockerfile --tag ${REGISTRY}/$image:dev . && docker push ${REGISTRY}/$image:dev; done"


@dataclass(frozen=True)
class Place:
    """A cluster, as far as the tests must know it beforehand."""

    is_own: bool
    """Whether it is this machine's: images are built and imported, and Services are reached by their addresses."""
    images: ImageOptions
    storage_class: str | None = None
    """Class of the volumes; None: the cluster's default."""
    access_mode: str = "ReadWriteMany"
    wait_seconds: int = 180
    """For the operator to come; a cluster of the user's may pull its image first."""
    build_seconds: int = 900
    """For a deployment to be served; on a machine that may do other work besides."""
    lack: str = ""
    """What the user must say first; empty: nothing."""

    def claim(self, size: str) -> dict[str, Any]:
        """Return the spec of a claim."""
        storage = {"storageClassName": self.storage_class} if self.storage_class else {}
        return {"accessModes": [self.access_mode], "resources": {"requests": {"storage": size}}, **storage}

    def store(self, size: str) -> dict[str, Any]:
        """Return `settings.engineStore`."""
        storage = {"storageClass": self.storage_class} if self.storage_class else {}
        return {"kind": "PersistentVolumeClaim", "size": size, "accessMode": self.access_mode, **storage}


def place(environment: Mapping[str, str]) -> Place:
    """Return the place that the variables describe; with none set, this machine's own cluster."""
    if not environment.get(CLUSTER):
        return Place(is_own=True, images=ImageOptions(base=DEBIAN, mounted=True))
    registry = environment.get(REGISTRY, "").rstrip("/")
    return Place(
        is_own=False,
        images=ImageOptions(registry=registry, tag=environment.get(TAG) or "dev"),
        storage_class=environment.get(STORAGE_CLASS) or None,
        access_mode=environment.get(ACCESS_MODE) or "ReadWriteMany",
        wait_seconds=600,
        build_seconds=900,
        lack="" if registry else f"needs {REGISTRY}, where the cluster pulls images that you pushed: `{PUSH}`",
    )
