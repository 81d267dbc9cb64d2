"""`diffusionctl history` and `diffusionctl undo`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from diffusion_operator.manifests.controller_revision import RevisionRecord, revision_record
from diffusion_operator.manifests.labels import DEPLOYMENT
from diffusion_operator.planning.revisions import SPEC_PARTS
from diffusionctl.cluster import Cluster
from diffusionctl.errors import UsageError


def show_history(deployment: str, cluster: Cluster, *, as_json: bool) -> None:
    """Print the kept revisions of a deployment, the newest first.

    Raises:
        UsageError: There is no such deployment.
        ClusterError: kubectl failed.
    """
    serving = cluster.get("dd", deployment).get("status", {}).get("servingRevision")
    records = _records(deployment, cluster)
    if as_json:
        print(json.dumps([_row(record, serving) for record in records], indent=2))
        return
    table = Table("revision", "name", "engine", "fate", box=None)
    for record in records:
        table.add_row(str(record.number), record.name, record.engine, _fate(record, serving))
    Console(highlight=False, soft_wrap=True).print(table)


def undo(deployment: str, cluster: Cluster, *, number: int | None) -> None:
    """Make a deployment's spec ask for an earlier revision again, which then rolls out as any other.

    Args:
        deployment: Its name.
        cluster: Where it is.
        number: Revision to go back to; None: the newest before the present one that was not given up.

    Raises:
        UsageError: There is no such deployment or revision, or it is the present one.
        ClusterError: kubectl failed, or somebody changed the deployment meanwhile.
    """
    resource = cluster.get("dd", deployment)
    record = _chosen(resource, _records(deployment, cluster), number)
    cluster.patch("dd", deployment, _operations(resource, record))
    print(f"{deployment} asks for revision {record.number} again ({record.name}); `kubectl get dd {deployment} --watch` follows it")
    print("If the deployment is kept in Git, change it there too: the next sync would bring the undone change back.")


def _records(deployment: str, cluster: Cluster) -> list[RevisionRecord]:
    """All that the operator wrote, the newest first."""
    records = [revision_record(body) for body in cluster.items("controllerrevisions", f"{DEPLOYMENT}={deployment}")]
    return sorted(records, key=lambda record: -record.number)


def _chosen(resource: dict[str, Any], records: Sequence[RevisionRecord], number: int | None) -> RevisionRecord:
    name, status = resource["metadata"]["name"], resource.get("status", {})
    if status.get("observedGeneration") != resource["metadata"]["generation"]:
        raise UsageError(f"the operator has not looked at the newest spec of {name} yet; try again, or see whether it runs")
    # A spec whose engine is not there yet is no revision so far; the newest one is then what it goes back to.
    is_asked = bool(records) and records[0].engine == status.get("engine", {}).get("name")
    earlier = records[1:] if is_asked else records
    if number is None:
        found = next((record for record in earlier if not record.abandoned), None)
        if found is None:
            raise UsageError(f"{name} has no earlier revision; spec.rollout.revisionHistoryLimit says how many are kept")
        return found
    if is_asked and records[0].number == number:
        raise UsageError(f"revision {number} is the one that {name} asks for now")
    found = next((record for record in earlier if record.number == number), None)
    if found is None:
        kept = ", ".join(str(record.number) for record in earlier) or "none"
        raise UsageError(f"{name} has no revision {number}; earlier ones are: {kept}")
    return found


def _operations(resource: dict[str, Any], record: RevisionRecord) -> list[dict[str, Any]]:
    """What makes the spec's parts those of the record, unless somebody changed the spec meanwhile."""
    operations: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/generation", "value": resource["metadata"]["generation"]}]
    for part in SPEC_PARTS:
        if part in record.spec:
            operations.append({"op": "add", "path": f"/spec/{part}", "value": record.spec[part]})
        elif part in resource["spec"]:
            operations.append({"op": "remove", "path": f"/spec/{part}"})
    return operations


def _fate(record: RevisionRecord, serving: str | None) -> str:
    if record.abandoned:
        return f"abandoned: {record.abandoned}"
    if record.name == serving:
        return "serves"
    return "served" if record.good else "never had all its pods"


def _row(record: RevisionRecord, serving: str | None) -> dict[str, Any]:
    return {"revision": record.number, "name": record.name, "engine": record.engine, "fate": _fate(record, serving)}
