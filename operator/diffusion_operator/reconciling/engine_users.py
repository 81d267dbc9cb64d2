"""Which deployments use which engine. An engine without users is deleted after a while, so none may be forgotten."""

from __future__ import annotations

from collections import defaultdict

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.kinds import Kind
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.labels import DEPLOYMENT, ENGINE
from diffusion_operator.observing.objects import label, part


class EngineUsers:
    """A deployment is a user whose status names the engine, that is about to ask for it, or of which a kept revision was made from it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._named: dict[tuple[str, str], str] = {}
        self._wanted: dict[tuple[str, str], str] = {}
        self._users: dict[tuple[str, str], set[str]] = defaultdict(set)

    def want(self, namespace: str, deployment: str, engine: str) -> None:
        """Note what a deployment is about to ask for, before the engine is made and the status says so."""
        self._set(self._wanted, (namespace, deployment), engine)

    def follow(self, kind: Kind, body: Manifest, gone: bool) -> set[tuple[str, str]]:  # As a store tells it.
        """Take note of a changed object, and return the engines (namespace, name) whose users it changed."""
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if kind is kinds.REVISION:
            return {(namespace, label(body, ENGINE))} if label(body, ENGINE) else set()
        if kind is not kinds.DEPLOYMENT:
            return set()
        key = (namespace, name)
        affected = {self._named.get(key), self._wanted.get(key)} if gone else {self._named.get(key)}
        if gone:
            self._set(self._named, key, None)
            self._set(self._wanted, key, None)
        else:
            named = part(body, "status", "engine").get("name")
            before = self._named.get(key)
            self._set(self._named, key, named if isinstance(named, str) else None)
            affected = {before, self._named.get(key)} if before != self._named.get(key) else set()
        return {(namespace, engine) for engine in affected if engine}

    def of(self, namespace: str, engine: str) -> frozenset[str]:
        """Names of the deployments that use an engine."""
        kept = {labels.get(DEPLOYMENT, "") for labels in self._store.labels(kinds.REVISION, namespace, ENGINE, engine)}
        known = {name for name in kept if self._store.uid(kinds.DEPLOYMENT, namespace, name)}
        return frozenset(self._users.get((namespace, engine), set()) | known)

    def _set(self, table: dict[tuple[str, str], str], key: tuple[str, str], engine: str | None) -> None:
        before = table.pop(key, None)
        if engine is not None:
            table[key] = engine
        for each in {before, engine} - {None}:
            users = self._users[key[0], str(each)]
            if each in (self._named.get(key), self._wanted.get(key)):
                users.add(key[1])
            else:
                users.discard(key[1])
            if not users:
                del self._users[key[0], str(each)]
