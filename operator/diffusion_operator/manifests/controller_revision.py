"""The record of a revision: what it serves, with which pod template, and how it fared. It is the rollout's memory.

The API server refuses changes of a ControllerRevision's data, so a revision is what it was when it was made; its fate is in
annotations. They are on the operator's own object, never on the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diffusion_api.environment import STORE_URI_VARIABLE
from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.engine_store import STORE_PATH
from diffusion_operator.manifests.labels import PREFIX, revision_labels

ACTIVATED = f"{PREFIX}/activated-at"
GOOD = f"{PREFIX}/good"
PROVEN = f"{PREFIX}/proven"
HELD = f"{PREFIX}/held"
ABANDONED = f"{PREFIX}/abandoned"
ENGINE_OPTION = "--engine"
"""Option of the init container, before the path of the engine."""


@dataclass(frozen=True)
class RevisionRecord:
    """One revision of a deployment."""

    name: str
    number: int
    """Counts up; the highest is the revision that the spec asks for."""
    engine: str
    """Name of the DiffusionEngine."""
    engine_key: str
    template: Manifest
    """Pod template. Not to be changed."""
    spec: Mapping[str, Any]
    """Parts of the deployment's spec that decided it, for an undo."""
    activated_at: datetime
    """When the spec began to ask for it, or it was held no longer; the progress deadline counts from here."""
    good: bool = False
    """Whether all wanted pods were ready at once since `activated_at`."""
    proven: bool = False
    """Whether it was good at any time: its template is one that works."""
    held: bool = False
    """Whether its deadline stands still: the rollout is paused, or no pod is wanted."""
    abandoned: str = ""
    """Why it was given up; empty: it was not."""
    base: str = ""
    """Name that the spec alone would give it; empty: its own. Others have the first revision's spec with another pod template."""

    @property
    def base_name(self) -> str:
        """Name by which a spec finds its revisions."""
        return self.base or self.name

    @property
    def artifact(self) -> str:
        """Path of the engine's files below the store, as its pods read it."""
        return template_artifact(self.template)

    @property
    def store(self) -> str:
        """Address in the bucket from which its pods bring the engine; empty for a claim."""
        return template_store(self.template)


def template_artifact(template: Mapping[str, Any]) -> str:
    """Path below the store of the engine that a serving pod template reads; empty where it names none."""
    spec = template.get("spec")
    containers = spec.get("initContainers") if isinstance(spec, Mapping) else None
    commands = [each.get("command") for each in containers if isinstance(each, Mapping)] if isinstance(containers, list) else []
    for command in commands:
        if isinstance(command, list) and ENGINE_OPTION in command[:-1]:
            return str(command[command.index(ENGINE_OPTION) + 1]).removeprefix(f"{STORE_PATH}/")
    return ""


def template_store(template: Mapping[str, Any]) -> str:
    """Address in the bucket from which a serving pod template brings its engine; empty where the store is a claim."""
    spec = template.get("spec")
    containers = spec.get("initContainers") if isinstance(spec, Mapping) else None
    for each in containers if isinstance(containers, list) else []:
        for variable in (each.get("env") or []) if isinstance(each, Mapping) else []:
            if isinstance(variable, Mapping) and variable.get("name") == STORE_URI_VARIABLE:
                return str(variable.get("value", ""))
    return ""


def controller_revision(owner: Owner, record: RevisionRecord) -> Manifest:
    """Build the ControllerRevision of a record."""
    annotations = {ACTIVATED: record.activated_at.isoformat()}
    # What is good is proven, and says so in one annotation: the revisions of an earlier release need no write.
    flags = {GOOD: record.good, PROVEN: record.proven and not record.good, HELD: record.held}
    for name, value in (*((name, "true" * holds) for name, holds in flags.items()), (ABANDONED, record.abandoned)):
        if value:
            annotations[name] = value
    data = {
        "engine": record.engine,
        "engineKey": record.engine_key,
        "template": copy.deepcopy(record.template),
        "spec": copy.deepcopy(dict(record.spec)),
        **({"base": record.base} if record.base else {}),
    }
    labels = revision_labels(owner.name, record.name, record.engine)
    manifest = child("apps/v1", "ControllerRevision", record.name, owner, labels, revision=record.number, data=data)
    manifest["metadata"]["annotations"] = annotations
    return manifest


def revision_record(manifest: Mapping[str, Any]) -> RevisionRecord:
    """Read a record back from a ControllerRevision that `controller_revision` built.

    Raises:
        KeyError, ValueError: Somebody else made or changed it; leave it alone.
    """
    annotations: Mapping[str, str] = manifest["metadata"]["annotations"]
    data = manifest["data"]
    return RevisionRecord(
        name=manifest["metadata"]["name"],
        number=manifest["revision"],
        engine=data["engine"],
        engine_key=data["engineKey"],
        template=data["template"],
        spec=data["spec"],
        activated_at=datetime.fromisoformat(annotations[ACTIVATED]),
        good=GOOD in annotations,
        proven=GOOD in annotations or PROVEN in annotations,
        held=HELD in annotations,
        abandoned=annotations.get(ABANDONED, ""),
        base=data.get("base", ""),
    )
