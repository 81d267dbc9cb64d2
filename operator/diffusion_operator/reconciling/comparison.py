"""Whether an object is already as its manifest says, so that a quiet cluster costs no write.

Two questions: was it this very manifest that was applied last (a digest on the object answers, and so finds what a newer manifest no
longer has), and does the object still hold what the manifest says (so drift is found, whoever caused it). The API server fills in
defaults, leaves out what is empty, and writes quantities in another form; none of these is a difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from diffusion_operator.manifests.base import Manifest
from diffusion_operator.manifests.labels import PREFIX

APPLIED = f"{PREFIX}/applied"
"""Annotation of children with the digest of what was applied."""
LIST_KEYS = ("name", "mountPath", "containerPort", "port", "uid", "topologyKey")
"""Fields by which server-side apply tells items of a list apart; others may add items to such a list. Source: Kubernetes' OpenAPI,
`x-kubernetes-list-map-keys`, of the lists in our manifests."""
QUANTITY_PARENTS = frozenset({"requests", "limits", "sizeLimit", "averageValue"})
SUFFIXES = {
    **{suffix: Decimal(10) ** power for suffix, power in {"m": -3, "k": 3, "M": 6, "G": 9, "T": 12}.items()},
    **{suffix: Decimal(2) ** power for suffix, power in {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}.items()},
}


def stamped(manifest: Manifest) -> Manifest:
    """Return the manifest with its own digest on it; it shares everything else with the original."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), APPLIED: _digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_applied(manifest: Manifest, live: Mapping[str, Any]) -> bool:
    """Tell whether nothing needs to be applied.

    Args:
        manifest: What shall be, stamped.
        live: The object as the API server gives it.
    """
    annotations = live["metadata"].get("annotations") or {}
    return annotations.get(APPLIED) == manifest["metadata"]["annotations"][APPLIED] and _holds(manifest, live, "")


def _digest(manifest: Manifest) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _holds(wanted: Any, live: Any, parent: str) -> bool:
    """`parent` is the name of the field, or of the one above it inside a mapping of quantities."""
    if not wanted and wanted is not None and live is None:
        return True  # The server leaves out what is empty, false or zero by default.
    if isinstance(wanted, Mapping):
        below = parent if parent in QUANTITY_PARENTS else None
        return isinstance(live, Mapping) and all(_holds(value, live.get(key), below or key) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        return isinstance(live, list) and _list_holds(wanted, live, parent)
    if isinstance(wanted, str) and isinstance(live, str) and parent in QUANTITY_PARENTS:
        return wanted == live or (_quantity(wanted) is not None and _quantity(wanted) == _quantity(live))
    return bool(wanted == live) and isinstance(wanted, bool) == isinstance(live, bool)


def _list_holds(wanted: Sequence[Any], live: Sequence[Any], parent: str) -> bool:
    key = next((name for name in LIST_KEYS if wanted and all(isinstance(item, Mapping) and name in item for item in wanted)), None)
    if key is None:
        return len(wanted) == len(live) and all(_holds(item, other, parent) for item, other in zip(wanted, live, strict=True))
    return all(any(_holds(item, other, parent) for other in live if isinstance(other, Mapping)) for item in wanted)


def _quantity(text: str) -> Decimal | None:
    """The value of `500m` or `1Gi`; None where it is no quantity."""
    suffix = next((each for each in sorted(SUFFIXES, key=len, reverse=True) if text.endswith(each)), "")
    try:
        return Decimal(text.removesuffix(suffix)) * SUFFIXES.get(suffix, Decimal(1))
    except InvalidOperation:
        return None
