"""What every object has: times, conditions, owners."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from diffusion_api.base import StatusModel

Body = Mapping[str, Any]
Model = TypeVar("Model", bound=StatusModel)


def part(body: Body, *path: str) -> Body:
    """Return an inner mapping; empty where it is missing."""
    inner: Any = body
    for name in path:
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def items(body: Body, *path: str) -> Sequence[Body]:
    """Return an inner list of mappings; empty where it is missing."""
    inner = part(body, *path[:-1]).get(path[-1])
    return [item for item in inner if isinstance(item, Mapping)] if isinstance(inner, list) else []


def time_of(text: object) -> datetime | None:
    """Read a time; None where there is none."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def condition(body: Body, type: str) -> Body | None:
    """Return a condition of the status, whatever it says."""
    return next((each for each in items(body, "status", "conditions") if each.get("type") == type), None)


def condition_holds(body: Body, type: str) -> bool:
    """Tell whether a condition is true."""
    found = condition(body, type)
    return found is not None and found.get("status") == "True"


def is_deleted(body: Body) -> bool:
    """Tell whether the object is on its way out."""
    return bool(part(body, "metadata").get("deletionTimestamp"))


def controller(body: Body) -> Body | None:
    """Reference to the object's controlling owner; None where it has none."""
    return next((owner for owner in items(body, "metadata", "ownerReferences") if owner.get("controller") is True), None)


def controller_uid(body: Body) -> str | None:
    """Uid of the object's controlling owner; None where it has none."""
    owner = controller(body)
    return str(owner.get("uid")) if owner else None


def label(body: Body, name: str) -> str:
    """Value of a label; empty where there is none."""
    value = part(body, "metadata", "labels").get(name)
    return value if isinstance(value, str) else ""


def annotation(body: Body, name: str) -> str:
    """Value of an annotation; empty where there is none."""
    value = part(body, "metadata", "annotations").get(name)
    return value if isinstance(value, str) else ""


def whole_number(value: object) -> int:
    """A count; 0 where there is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def read_status(body: Body, model: type[Model]) -> Model | None:
    """Read a status; None where there is none, or one that cannot be read."""
    try:
        return model.model_validate_json(json.dumps(body["status"]), strict=True, by_alias=True, by_name=False)
    except (KeyError, TypeError, ValidationError):
        return None
