"""What the operator is told by whoever installs it, as a value: the chart mounts it as one YAML file.

Reads nothing itself; `settings_file` does. Field names are those of the file, in camelCase.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from diffusion_api.base import DNS_SUBDOMAIN_PATTERN, ApiModel

NAMESPACE_OR_ALL_PATTERN = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
UNLOAD_SECONDS = 10
"""Time that Triton has to unload its models."""


class PullPolicy(StrEnum):
    """When the kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class AccessMode(StrEnum):
    """Who may mount the engine store at once."""

    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE = "ReadWriteOnce"


class Images(ApiModel):
    """Container images, each with tag or digest."""

    builder: str = Field(default="diffusion-operator/builder:0.2.0", min_length=1)
    """Runs `python -m engine_builder`; for TensorRT it must hold the same TensorRT version as `tritonGpu`."""
    triton_cpu: str = Field(default="diffusion-operator/triton-cpu:0.2.0", min_length=1)
    """Serves engines of the CPU."""
    triton_gpu: str = Field(default="diffusion-operator/triton-gpu:0.2.0", min_length=1)
    """Serves engines of a GPU."""
    registry: str | None = Field(default=None, min_length=1)
    """Registry host, with an optional path, that replaces that of every image, for a mirror behind a firewall."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When images are pulled."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets with registry credentials; each must be in the namespace of the pods."""

    def resolved(self, image: str) -> str:
        """Return an image with the registry put in its place."""
        if self.registry is None:
            return image
        first, slash, rest = image.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        return f"{self.registry.rstrip('/')}/{rest if is_host else image}"


class Resources(ApiModel):
    """What a container asks for beside the accelerator."""

    cpu: str = Field(default="2", pattern=QUANTITY_PATTERN)
    """CPU that is requested; there is no CPU limit, for throttling costs latency."""
    memory: str = Field(default="8Gi", pattern=QUANTITY_PATTERN)
    """Memory that is requested, and its limit."""
    ephemeral_storage: str | None = Field(default=None, pattern=QUANTITY_PATTERN)
    """Disk of the node that is requested, for scratch files."""


class PvcStore(ApiModel):
    """Engines on a volume: one claim in each namespace that has deployments."""

    kind: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    """Kind of store."""
    claim_name: str = Field(default="diffusion-engine-store", pattern=DNS_SUBDOMAIN_PATTERN)
    """Name of the claim."""
    create: bool = True
    """Whether the operator makes the claim where it is missing; false: its namespace brings it."""
    storage_class: str | None = None
    """Storage class; unset: the cluster's default."""
    access_mode: AccessMode = AccessMode.READ_WRITE_MANY
    """With ReadWriteOnce all pods of a namespace that use the store are kept on one node, by pod affinity."""
    size: str = Field(default="200Gi", pattern=QUANTITY_PATTERN)
    """Size of the claim."""


class S3Store(ApiModel):
    """Engines in a bucket, from which every pod brings a copy of its own."""

    kind: Literal["S3"] = "S3"
    """Kind of store."""
    uri: str = Field(pattern=r"^s3://.+$")
    """Where engines lie, for example `s3://models/engines`; it belongs to this operator alone."""
    secret_name: str | None = Field(default=None, pattern=DNS_SUBDOMAIN_PATTERN)
    """Secret with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for another server than Amazon's, `AWS_ENDPOINT_URL`, in each namespace
    that has deployments; unset: the pod's own role."""
    shared_namespaces: tuple[Annotated[str, Field(pattern=NAMESPACE_OR_ALL_PATTERN)], ...] = ()
    """Namespaces that share engines, which are then built once for all of them; `*`: all. Every other namespace has engines of its own."""
    scratch_size: str = Field(default="200Gi", pattern=QUANTITY_PATTERN)
    """Size of a pod's copy: for a builder checkpoint, stages and engine, for a serving pod its engine."""

    def shares(self, namespace: str) -> bool:
        """Tell whether a namespace shares its engines."""
        return not {"*", namespace}.isdisjoint(self.shared_namespaces)


class BuildPolicy(ApiModel):
    """Builder Jobs."""

    resources: Resources = Resources(cpu="4", memory="64Gi")
    """What the builder asks for."""
    backoff_limit: int = Field(default=3, ge=0, le=100)
    """Attempts after the first, where another attempt can succeed."""
    deadline_seconds: int = Field(default=21_600, ge=60)
    """A build that takes longer is ended, all attempts together, in seconds."""
    ttl_seconds: int = Field(default=86_400, ge=0)
    """A finished Job and its log are kept for so long, in seconds."""
    grace_seconds: int = Field(default=30, ge=1)
    """Time that an evicted builder has to end, in seconds."""
    queue_name: str | None = Field(default=None, pattern=DNS_SUBDOMAIN_PATTERN)
    """Kueue's LocalQueue: Jobs are made suspended and wait there for admission."""


class ServingPolicy(ApiModel):
    """Serving pods."""

    resources: Resources = Resources(cpu="2", memory="16Gi")
    """What Triton asks for."""
    shm_size: str = Field(default="1Gi", pattern=QUANTITY_PATTERN)
    """Size of the memory-backed /dev/shm, through which Triton hands tensors to its Python models; counts as memory."""
    pre_stop_seconds: int = Field(default=15, ge=0)
    """Time in which a pod that leaves the Service still takes requests, in seconds: clients need it to learn of that."""
    exit_timeout_seconds: int = Field(default=120, ge=1)
    """Time that waiting and running requests then have to finish, in seconds; at least the longest generation. Only as much of it
    passes as they need."""
    topology_keys: tuple[str, ...] = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    """Node labels over which replicas are spread where possible."""


class Scaling(ApiModel):
    """Where autoscalers find the load."""

    metric: str = Field(default="diffusion_pending_requests", pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
    """Gauge of each pod: requests that wait or run. Triton's own `nv_inference_pending_request_count` stays at 0 for the pipeline,
    which takes every request at once and queues it itself."""
    prometheus_url: str | None = None
    """Prometheus that KEDA asks; unset: KEDA is not used."""
    scale_down_seconds: int = Field(default=300, ge=0, le=3600)
    """Load must be low for so long before a pod is taken away, in seconds."""


class DynamicResources(ApiModel):
    """GPUs by ResourceClaim instead of by extended resource."""

    enabled: bool = False
    """Needs Kubernetes 1.34 and NVIDIA's DRA driver."""
    device_class: str = "gpu.nvidia.com"
    """DeviceClass of whole GPUs."""
    mig_device_class: str = "mig.nvidia.com"
    """DeviceClass of MIG slices."""
    driver: str = "gpu.nvidia.com"
    """Driver, which is the domain of the devices' attributes."""


class Versions(ApiModel):
    """What engines are made with; part of the engine key."""

    builder: str = "1"
    """Generation of the builder. Raise it where engines of earlier builders shall be built again; a new image alone rebuilds none."""
    tensorrt: str = "unset"
    """TensorRT, which is also that of `tritonGpu`."""
    tensorrt_rtx: str = "unset"
    """TensorRT-RTX."""
    openvino: str = "unset"
    """OpenVINO."""


class OperatorSettings(ApiModel):
    """Everything that the installation decides for all deployments."""

    images: Images = Images()
    """Container images."""
    versions: Versions = Versions()
    """Compilers of the builder image."""
    engine_store: PvcStore | S3Store = Field(default=PvcStore(), discriminator="kind")
    """Where engines lie."""
    build: BuildPolicy = BuildPolicy()
    """Builder Jobs."""
    serving: ServingPolicy = ServingPolicy()
    """Serving pods."""
    scaling: Scaling = Scaling()
    """Autoscaling."""
    dynamic_resources: DynamicResources = DynamicResources()
    """GPUs by ResourceClaim."""
    tolerations: tuple[dict[str, Any], ...] = ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)
    """Tolerations of every pod that the operator makes."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Further node labels that every pod needs."""
    priority_class_name: str | None = None
    """Priority class of every pod."""
    runtime_class_name: str | None = None
    """Runtime class of pods with a GPU, for example `nvidia`."""
    scheduler_name: str | None = None
    """Scheduler of every pod."""
    env: tuple[dict[str, Any], ...] = ()
    """Further environment of builder and Triton, for example proxies, as in a container's `env`."""
    ca_config_map: str | None = Field(default=None, pattern=DNS_SUBDOMAIN_PATTERN)
    """ConfigMap in the namespace of the pods whose `ca.crt` downloads trust."""
    pod_monitor_labels: dict[str, str] = Field(default_factory=dict)
    """Labels by which Prometheus finds the PodMonitors of serving pods, for example those that kube-prometheus-stack selects."""
    network_policies: bool = True
    """Whether NetworkPolicies are made."""
    engine_retention_seconds: int = Field(default=604_800, ge=0)
    """An engine that nothing uses is deleted after so long, in seconds."""
    user_id: int = Field(default=1000, ge=1)
    """User and group of every container, and owner of its volumes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        unnamed = [entry for entry in self.env if not entry.get("name")]
        if unnamed:
            raise ValueError(f"env: {unnamed[0]} has no name; write {{name: HTTPS_PROXY, value: …}}")
        return self

    @property
    def grace_period_seconds(self) -> int:
        """Time from a serving pod's deletion to its kill: leaving the Service, finishing requests, unloading, and as much to spare."""
        return self.serving.pre_stop_seconds + self.serving.exit_timeout_seconds + 2 * UNLOAD_SECONDS
