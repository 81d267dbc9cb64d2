"""Which keys a changed object concerns. That something changed is all that a change says; what to do is read from what is."""

from __future__ import annotations

from collections.abc import Iterator

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.labels import DEPLOYMENT, ENGINE
from diffusion_operator.observing.objects import label
from diffusion_operator.observing.pods import files_missing_at
from diffusion_operator.reconciling.engine_users import EngineUsers
from diffusion_operator.reconciling.keys import Controller, Key


def concerned(kind: Kind, body: Manifest, users: EngineUsers) -> Iterator[Key]:
    """Give every key that wants a look because an object changed or went."""
    metadata = body["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if kind is kinds.DEPLOYMENT:
        yield Key(Controller.DEPLOYMENT, namespace, name)
        return
    if kind is kinds.ENGINE:
        yield Key(Controller.ENGINE, namespace, name)
        for user in sorted(users.of(namespace, name)):
            yield Key(Controller.DEPLOYMENT, namespace, user)
        return
    if label(body, DEPLOYMENT):
        yield Key(Controller.DEPLOYMENT, namespace, label(body, DEPLOYMENT))
    # A serving pod concerns its engine only where it misses the engine's files.
    is_engines = not label(body, DEPLOYMENT) or (kind is kinds.POD and files_missing_at([body]) is not None)
    if is_engines and label(body, ENGINE):
        yield Key(Controller.ENGINE, namespace, label(body, ENGINE))
