"""The objects that the operator knows of, kept as compact JSON, each in its newest version.

Three sources feed it: watching, listing, and the answers to the operator's own writes. They come in any order, twice, or never, so a
version that is older than the one held is passed over, an object that went comes back only in a version that is newer than its end, and
a listing drops what is gone. An object goes by deletion, and also by losing a label by which it is selected; then it may well come back.
"""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusion_operator.cluster.client import Listing
from diffusion_operator.cluster.kinds import HELD, JOB, POD, Kind
from diffusion_operator.manifests.base import Manifest, Ref
from diffusion_operator.manifests.labels import DEPLOYMENT, ENGINE

INDEXED = (DEPLOYMENT, ENGINE)
"""Labels by which objects are found."""
TOMBSTONES = 10_000
"""Objects that went and are remembered: more than can go while one late event is on its way."""
POD_SPEC = ("nodeName",)

Listener = Callable[[Kind, Manifest, bool], None]
"""Is told of every change: the kind, the newest version, and whether the object is gone."""


@dataclass(frozen=True)
class _Entry:
    uid: str
    version: int
    labels: Mapping[str, str]
    body: bytes


class ObjectStore:
    """See the module. Belongs to one event loop; every body that it returns is a new dict."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], _Entry]] = {kind: {} for kind in HELD}
        self._index: dict[tuple[Kind, str, str, str], set[str]] = defaultdict(set)
        self._gone: OrderedDict[str, int] = OrderedDict()
        """Version of the end of each uid that went."""
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every change from now on."""
        self._listeners.append(listener)

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None where there is none."""
        entry = self._objects[kind].get((namespace, name))
        return _decoded(entry) if entry else None

    def names(self, kind: Kind) -> list[tuple[str, str]]:
        """Namespace and name of every object of a kind."""
        return list(self._objects[kind])

    def uid(self, kind: Kind, namespace: str, name: str) -> str | None:
        """Uid of an object, or None where there is none; reads no body."""
        entry = self._objects[kind].get((namespace, name))
        return entry.uid if entry else None

    def labelled(self, kind: Kind, namespace: str, label: str, value: str) -> list[Manifest]:
        """Return the objects of a kind with a value of one of the labels `INDEXED`, by name."""
        names = sorted(self._index.get((kind, namespace, label, value), ()))
        return [_decoded(self._objects[kind][namespace, name]) for name in names]

    def labels(self, kind: Kind, namespace: str, label: str, value: str) -> list[Mapping[str, str]]:
        """Return the labels `INDEXED` of such objects; reads no body."""
        names = self._index.get((kind, namespace, label, value), ())
        return [self._objects[kind][namespace, name].labels for name in names]

    def put(self, kind: Kind, body: Manifest) -> bool:
        """Keep an object, and tell whether it was news."""
        metadata = body["metadata"]
        uid, version = metadata.get("uid", ""), _version(metadata)
        key = (metadata.get("namespace", ""), metadata["name"])
        held = self._objects[kind].get(key)
        if version <= self._gone.get(uid, -1) or (held is not None and 0 < version <= held.version):
            return False
        self._gone.pop(uid, None)
        if held is not None:
            self._unindex(kind, key, held)
        labels = {name: metadata["labels"][name] for name in INDEXED if name in (metadata.get("labels") or {})}
        pruned = _pruned(kind, body)
        self._objects[kind][key] = _Entry(uid, version, labels, json.dumps(pruned, separators=(",", ":")).encode())
        for label, value in labels.items():
            self._index[kind, key[0], label, value].add(key[1])
        self._tell(kind, pruned, gone=False)
        return True

    def forget(self, kind: Kind, body: Manifest) -> bool:
        """Drop an object that went, and tell whether it was held. Nothing late brings it back.

        Args:
            kind: Its kind.
            body: The object in the version in which it went. One that is held in a newer version has come back since.
        """
        metadata = body["metadata"]
        return self._drop(kind, (metadata.get("namespace", ""), metadata["name"]), metadata.get("uid", ""), _version(metadata))

    def replace(self, kind: Kind, listing: Listing, namespace: str | None) -> int:
        """Take a listing for the truth of its moment, of one namespace or of all, and count what it changed."""
        seen = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in listing.items}
        moment = _version({"resourceVersion": listing.resource_version})
        absent = [
            (key, entry.uid)
            for key, entry in self._objects[kind].items()
            if key not in seen and entry.version <= moment and namespace in (None, key[0])
        ]
        dropped = sum(self._drop(kind, key, uid, moment) for key, uid in absent)
        return dropped + sum(self.put(kind, item) for item in listing.items)

    def _drop(self, kind: Kind, key: tuple[str, str], uid: str, version: int) -> bool:
        entry = self._objects[kind].get(key)
        held = entry if entry is not None and entry.uid == uid else None
        if held is not None and 0 < version < held.version:
            return False
        self._gone[uid] = max(version, held.version if held else 0)
        while len(self._gone) > TOMBSTONES:
            self._gone.popitem(last=False)
        if held is None:
            return False
        del self._objects[kind][key]
        self._unindex(kind, key, held)
        self._tell(kind, _decoded(held), gone=True)
        return True

    def _unindex(self, kind: Kind, key: tuple[str, str], entry: _Entry) -> None:
        for label, value in entry.labels.items():
            names = self._index[kind, key[0], label, value]
            names.discard(key[1])
            if not names:
                del self._index[kind, key[0], label, value]

    def _tell(self, kind: Kind, body: Manifest, *, gone: bool) -> None:
        for listener in self._listeners:
            listener(kind, body, gone)


def _decoded(entry: _Entry) -> Manifest:
    body: Manifest = json.loads(entry.body)
    return body


def _version(metadata: Mapping[str, str]) -> int:
    """A resource version as a number. Source: KEP-5504, "comparable resource version": they are numbers that grow."""
    text = metadata.get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0


def _pruned(kind: Kind, body: Manifest) -> Manifest:
    """Leave out what nothing reads: half of an object is `managedFields`, and most of a pod is its spec."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    pruned = {**body, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    if kind is POD:
        pruned["spec"] = {key: value for key, value in body.get("spec", {}).items() if key in POD_SPEC}
    if kind is JOB:
        pruned["spec"] = {key: value for key, value in body.get("spec", {}).items() if key != "template"}
    return pruned


def ref(kind: Kind, namespace: str, name: str) -> Ref:
    """Name an object of a kind."""
    return Ref(kind.api_version, kind.name, namespace, name)
