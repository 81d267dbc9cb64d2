"""Where engines lie: one claim a namespace, or a bucket with a copy on the node."""

from __future__ import annotations

from diffusion_api.environment import STORE_URI_VARIABLE
from diffusion_operator.manifests.base import Manifest, without_none
from diffusion_operator.manifests.labels import managed_labels
from diffusion_operator.settings import OperatorSettings, PvcStore, S3Store

STORE_PATH = "/engine-store"
STORE_VOLUME = "engine-store"


def engine_store_claim(namespace: str, store: PvcStore) -> Manifest:
    """Build the claim. It has no owner: engines outlive the deployment that wanted them first."""
    spec = without_none(
        {
            "accessModes": [store.access_mode.value],
            "resources": {"requests": {"storage": store.size}},
            "storageClassName": store.storage_class,
        }
    )
    metadata = {"name": store.claim_name, "namespace": namespace, "labels": managed_labels()}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def store_volume(settings: OperatorSettings) -> Manifest:
    """The pod's volume of the store."""
    match settings.engine_store:
        case PvcStore() as store:
            return {"name": STORE_VOLUME, "persistentVolumeClaim": {"claimName": store.claim_name}}
        case S3Store() as store:
            return {"name": STORE_VOLUME, "emptyDir": {"sizeLimit": store.scratch_size}}


def store_mount(*, read_only: bool) -> Manifest:
    """The container's mount of the store."""
    mount: Manifest = {"name": STORE_VOLUME, "mountPath": STORE_PATH}
    return {**mount, "readOnly": True} if read_only else mount


def store_uri(store: S3Store, namespace: str) -> str:
    """Where the engines of a namespace lie: beside those of the others that share, or apart from everybody's."""
    place = "shared" if store.shares(namespace) else f"namespaces/{namespace}"
    return f"{store.uri.rstrip('/')}/{place}"


def store_address(settings: OperatorSettings, namespace: str) -> str:
    """Where the engines of a namespace lie in the bucket; empty where the store is a claim."""
    match settings.engine_store:
        case PvcStore():
            return ""
        case S3Store() as store:
            return store_uri(store, namespace)


def have_one_store(settings: OperatorSettings, namespace: str, other: str) -> bool:
    """Tell whether files of the same path are the same files in two namespaces."""
    address = store_address(settings, namespace)
    return namespace == other or (bool(address) and address == store_address(settings, other))


def store_env(settings: OperatorSettings, namespace: str) -> list[Manifest]:
    """Environment by which a container of a namespace finds the bucket; nothing for a claim."""
    address = store_address(settings, namespace)
    return [{"name": STORE_URI_VARIABLE, "value": address}] if address else []


def store_env_from(settings: OperatorSettings) -> list[Manifest] | None:
    """The container's `envFrom` with the bucket's credentials; None where there are none."""
    store = settings.engine_store
    if isinstance(store, S3Store) and store.secret_name:
        return [{"secretRef": {"name": store.secret_name}}]
    return None
