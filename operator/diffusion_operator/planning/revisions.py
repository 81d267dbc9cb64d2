"""Revisions of a deployment: their names, their records, which one is asked for, and which one to fall back to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from diffusion_api.deployment import DiffusionDeploymentSpec
from diffusion_operator.manifests.controller_revision import RevisionRecord
from diffusion_operator.manifests.serving_pod import triton_image
from diffusion_operator.planning.observed import RevisionPods
from diffusion_operator.settings import OperatorSettings

SPEC_PARTS = ("model", "shapes", "optimization", "accelerator", "serving")
"""Fields of a deployment's spec that an undo brings back; the others scale and roll out, and make no revision."""
HASH_LENGTH = 10  # With a name of 52 characters and a dash this gives the 63 of a label.


def revision_name(deployment: str, engine_key: str, spec: DiffusionDeploymentSpec, settings: OperatorSettings) -> str:
    """Name the revision after what its pods serve and with which image, and after nothing that is only about how many or where."""
    inputs = {
        "engineKey": engine_key,
        "serving": spec.serving.to_wire(),
        "accelerator": spec.accelerator.to_wire(),
        "image": settings.images.resolved(triton_image(spec.accelerator, settings)),
    }
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return f"{deployment}-{hashlib.sha256(canonical.encode()).hexdigest()[:HASH_LENGTH]}"


def latest(records: Sequence[RevisionRecord]) -> RevisionRecord | None:
    """The revision that was asked for last."""
    return max(records, key=lambda record: record.number, default=None)


def activated(records: Sequence[RevisionRecord], candidate: RevisionRecord) -> RevisionRecord:
    """Return the record of the revision that the spec asks for.

    A revision that is there keeps its template. One that is asked for again, after others, begins anew: it may serve where it was
    abandoned, and must become good again.

    Args:
        records: What there is.
        candidate: The record as it would be if new; its number is not looked at.
    """
    newest = latest(records)
    if newest is not None and newest.name == candidate.name:
        return newest
    number = newest.number + 1 if newest else 1
    for record in records:
        if record.name == candidate.name:
            return replace(record, number=number, activated_at=candidate.activated_at, good=False, held=False, abandoned="")
    return replace(candidate, number=number)


def fallback(records: Sequence[RevisionRecord], target: RevisionRecord) -> RevisionRecord | None:
    """The newest other revision that was good."""
    return latest([record for record in records if record.good and not record.abandoned and record.name != target.name])


def judged(record: RevisionRecord, *, good: bool, held: bool, now: datetime) -> RevisionRecord:
    """Note on a record that it is good, or that it is held, by a pause or because no pod is wanted; the deadline then begins anew."""
    if good:
        return replace(record, good=True, held=False)
    if held:
        return record if record.good else replace(record, held=True)
    return replace(record, held=False, activated_at=now) if record.held else record


def deadline(record: RevisionRecord, pods: RevisionPods, seconds: int) -> datetime:
    """When the revision is given up unless another of its pods becomes ready."""
    progressed = max(record.activated_at, pods.last_ready_at or record.activated_at)
    return progressed + timedelta(seconds=seconds)


def outdated(records: Sequence[RevisionRecord], needed: set[str], limit: int) -> tuple[RevisionRecord, ...]:
    """Records beyond the history: all but the needed ones and the newest `limit` others."""
    others = sorted((record for record in records if record.name not in needed), key=lambda record: -record.number)
    return tuple(others[limit:])
