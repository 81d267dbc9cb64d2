"""`diffusionctl retry`."""

from __future__ import annotations

import time

from diffusion_api.conditions import ConditionType
from diffusion_operator.manifests.labels import RETRY_ANNOTATION
from diffusionctl.cluster import Cluster
from diffusionctl.errors import UsageError


def retry_build(deployment: str, cluster: Cluster) -> None:
    """Ask for another attempt at a deployment's failed build; stages that were finished are reused.

    Raises:
        UsageError: There is no such deployment, it has no engine yet, or its build has not failed.
        ClusterError: kubectl failed.
    """
    engine = cluster.get("dd", deployment).get("status", {}).get("engine", {}).get("name")
    if not engine:
        raise UsageError(f"{deployment} has no engine yet; see `kubectl describe dd {deployment}`")
    status = cluster.get("de", engine).get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    ready, progressing = conditions.get(ConditionType.READY, {}), conditions.get(ConditionType.PROGRESSING, {})
    if ready.get("status") != "False" or progressing.get("status") != "False":
        raise UsageError(f"engine {engine} has not failed: {ready.get('message', 'its build has not begun')}")
    cluster.annotate("de", engine, RETRY_ANNOTATION, str(int(time.time())))
    print(f"engine {engine} is built again; `kubectl get de {engine} --watch` follows it")
