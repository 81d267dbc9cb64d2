"""The kinds that the operator reads and writes: their paths, and which of their objects it holds in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from diffusion_api.base import API_VERSION
from diffusion_operator.manifests.base import Ref
from diffusion_operator.manifests.labels import MANAGED_BY, MANAGER

OURS: Final = f"{MANAGED_BY}={MANAGER}"
"""Selects what the operator made, so that not every pod of the cluster is held."""


@dataclass(frozen=True)
class Kind:
    """One kind of object."""

    api_version: str
    name: str
    plural: str
    selector: str = ""
    """Labels of the objects that are held; empty: all."""
    watched: bool = True
    """Whether changes are told at once. What is not watched is listed at each resync, and known from the operator's own writes."""
    optional: bool = False
    """Whether a cluster may lack it."""

    @property
    def group(self) -> str:
        """API group; empty for the core."""
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    @property
    def version(self) -> str:
        """Version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of a list, an object or its subresource; without a namespace that of the whole cluster."""
        parts = ["apis" if self.group else "api", self.api_version, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/" + "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


DEPLOYMENT: Final = Kind(API_VERSION, "DiffusionDeployment", "diffusiondeployments")
ENGINE: Final = Kind(API_VERSION, "DiffusionEngine", "diffusionengines")
POD: Final = Kind("v1", "Pod", "pods", OURS)
JOB: Final = Kind("batch/v1", "Job", "jobs", OURS)
SERVING: Final = Kind("apps/v1", "Deployment", "deployments", OURS)
REVISION: Final = Kind("apps/v1", "ControllerRevision", "controllerrevisions", OURS)
AUTOSCALER: Final = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", OURS)
SCALED_OBJECT: Final = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", OURS, watched=False, optional=True)
POD_MONITOR: Final = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", OURS, watched=False, optional=True)
CLAIM_TEMPLATE: Final = Kind("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates", OURS, watched=False, optional=True)
HELD: Final = (
    DEPLOYMENT,
    ENGINE,
    POD,
    JOB,
    SERVING,
    REVISION,
    Kind("v1", "Service", "services", OURS),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", OURS),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", OURS),
    AUTOSCALER,
    SCALED_OBJECT,
    POD_MONITOR,
    CLAIM_TEMPLATE,
)
"""Kinds whose objects are held in memory."""

CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
CLAIM: Final = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")
CORE_EVENT: Final = Kind("v1", "Event", "events")
"""The same events as they are read: the newer API selects by the same fields under other names."""
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
NODE: Final = Kind("v1", "Node", "nodes")

_BY_NAME: Final = {(kind.api_version, kind.name): kind for kind in (*HELD, CONFIG_MAP, CLAIM, EVENT, LEASE, NODE)}


def kind_of(ref: Ref) -> Kind:
    """Return the kind of an object.

    Raises:
        KeyError: The operator has no business with it: a bug.
    """
    return _BY_NAME[ref.api_version, ref.kind]
