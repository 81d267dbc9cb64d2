"""Revisions of a deployment: their names, their records, which one is asked for, and which one to fall back to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.controller_revision import RevisionRecord
from diffusion_operator.manifests.serving_pod import triton_image
from diffusion_operator.planning.observed import RevisionPods, TroubleKind
from diffusion_operator.settings import OperatorSettings

SPEC_PARTS = ("model", "shapes", "optimization", "accelerator", "serving")
"""Fields of a deployment's spec that an undo brings back; the others scale and roll out, and make no revision."""
HASH_LENGTH = 10  # With a name of 52 characters and a dash this gives the 63 of a label.

NO_PODS = RevisionPods()
SETTINGS_TROUBLES = frozenset({TroubleKind.OUT_OF_MEMORY, TroubleKind.IMAGE, TroubleKind.VOLUME})
"""Troubles whose cure is in the operator's settings."""


def revision_name(deployment: str, engine_key: str, spec: DiffusionDeploymentSpec, settings: OperatorSettings) -> str:
    """Name the revision after what its pods serve and with which image, and after nothing that is only about how many or where."""
    inputs = {
        "engineKey": engine_key,
        "serving": spec.serving.to_wire(),
        "accelerator": spec.accelerator.to_wire(),
        "image": settings.images.resolved(triton_image(spec.accelerator, settings)),
    }
    return f"{deployment}-{_digest(inputs)}"


def latest(records: Sequence[RevisionRecord]) -> RevisionRecord | None:
    """The revision that was asked for last."""
    return max(records, key=lambda record: record.number, default=None)


def activated(records: Sequence[RevisionRecord], pods: Mapping[str, RevisionPods], candidate: RevisionRecord) -> RevisionRecord:
    """Return the record of the revision that the spec asks for.

    A revision that is there keeps its template while it serves, so that an upgraded operator restarts no pod. It is not enough where
    the engine's files lie elsewhere now. Nor is it where a pod finds no files, or none is ready and it never was good or lacks what the
    operator's settings give, and it would be made otherwise today, from another store for example. Then another of the same spec comes
    after it. One that is asked for again, after others, begins anew: it may serve where it was abandoned, and must become good again.

    Args:
        records: What there is.
        pods: What pods there are, by revision.
        candidate: The record as it would be if new, named after the spec alone; its number is not looked at.
    """
    newest = latest(records)
    alike = [record for record in records if record.base_name == candidate.name]
    is_asked = newest is not None and newest.base_name == candidate.name
    if newest is not None and is_asked and _is_enough(newest, pods, candidate):
        return newest
    # What changed under an unchanged spec is the template, so that an earlier one will not do.
    fitting = [record for record in alike if (_is_made_as(record, candidate) if is_asked else _is_enough(record, pods, candidate))]
    number = newest.number + 1 if newest else 1
    known = latest(fitting)
    if known is not None:
        return replace(known, number=number, activated_at=candidate.activated_at, good=False, held=False, abandoned="")
    return replace(_variant(candidate) if alike else candidate, number=number)


def _is_enough(record: RevisionRecord, pods: Mapping[str, RevisionPods], candidate: RevisionRecord) -> bool:
    if record.artifact != candidate.artifact:
        return False
    state = pods.get(record.name, NO_PODS)
    trouble = state.trouble.kind if state.trouble else None
    # A bucket's copy of a pod that is ready outlives the files, and helps no other pod.
    is_open = trouble is TroubleKind.FILES_MISSING or (not state.ready and (not record.proven or trouble in SETTINGS_TROUBLES))
    return not is_open or _is_made_as(record, candidate)


def _is_made_as(record: RevisionRecord, candidate: RevisionRecord) -> bool:
    return _digest(record.template) == _digest(_renamed(candidate.template, candidate.name, record.name))


def _variant(candidate: RevisionRecord) -> RevisionRecord:
    """The same revision under a name of its own, after its template: that of the spec is taken."""
    deployment = candidate.name[: -HASH_LENGTH - 1]
    name = f"{deployment}-{_digest({'base': candidate.name, 'template': candidate.template})}"
    return replace(candidate, name=name, base=candidate.name, template=_renamed(candidate.template, candidate.name, name))


def _renamed(template: Manifest, before: str, after: str) -> Manifest:
    """The template with the revision's name changed in labels, selectors and claims. As it reads when it comes back from the cluster."""
    renamed: Manifest = json.loads(json.dumps(template).replace(json.dumps(before), json.dumps(after)))
    return renamed


def _digest(inputs: Mapping[str, object]) -> str:
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:HASH_LENGTH]


def fallback(records: Sequence[RevisionRecord], target: RevisionRecord) -> RevisionRecord | None:
    """The newest other revision that was good, and whose engine's files are there."""
    return latest([record for record in records if is_worth_keeping(record, target) and record.name != target.name])


def is_worth_keeping(record: RevisionRecord, target: RevisionRecord) -> bool:
    """Tell whether a revision was good and can be gone back to.

    Its files are gone where its engine was built again elsewhere. Where only the store is another, and the spec the same, the target was
    made because this one's pods did not serve.
    """
    if not record.good or record.abandoned:
        return False
    is_of_store = record.base_name != target.base_name or record.store == target.store
    return record.engine != target.engine or (record.artifact == target.artifact and is_of_store)


def judged(record: RevisionRecord, *, good: bool, held: bool, now: datetime) -> RevisionRecord:
    """Note on a record that it is good, or that it is held, by a pause or because no pod is wanted; the deadline then begins anew."""
    if good:
        return replace(record, good=True, proven=True, held=False)
    if held:
        return record if record.good else replace(record, held=True)
    return replace(record, held=False, activated_at=now) if record.held else record


def progress_seconds(spec: DiffusionDeploymentSpec) -> int:
    """How long a revision may make no progress: at least as long as one of its pods may take to load the engine."""
    return max(spec.rollout.progress_deadline_seconds, spec.serving.startup_timeout_seconds)


def deadline(record: RevisionRecord, pods: RevisionPods, spec: DiffusionDeploymentSpec) -> datetime:
    """When the revision is given up unless another of its pods becomes ready."""
    progressed = max(record.activated_at, pods.last_ready_at or record.activated_at)
    return progressed + timedelta(seconds=progress_seconds(spec))


def outdated(records: Sequence[RevisionRecord], needed: set[str], limit: int) -> tuple[RevisionRecord, ...]:
    """Records beyond the history: all but the needed ones and the newest `limit` others."""
    others = sorted((record for record in records if record.name not in needed), key=lambda record: -record.number)
    return tuple(others[limit:])
