"""The Deployment of one revision. Its template never changes; rollouts move replicas between the Deployments of two revisions."""

from __future__ import annotations

import copy

from diffusion_operator.manifests.base import Manifest, Owner, child
from diffusion_operator.manifests.controller_revision import RevisionRecord
from diffusion_operator.manifests.labels import revision_labels, revision_selector


def serving_deployment(owner: Owner, record: RevisionRecord, replicas: int) -> Manifest:
    """Build the Deployment of a revision from its record, so that an upgraded operator restarts no pod of it."""
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": revision_selector(owner.name, record.name)},
        # No template change is ever meant; if someone makes one, it must take no extra GPU.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 0,
        "template": copy.deepcopy(record.template),
    }
    return child("apps/v1", "Deployment", record.name, owner, revision_labels(owner.name, record.name, record.engine), spec=spec)
