"""Names by content: the same settings and files give the same SHA-256 on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel

from engine_runtime.checksums import digest_of_file, files_below

__all__ = ["digest_of", "digest_of_file", "digest_of_tree", "files_below"]


def digest_of(*parts: object) -> str:
    """Return the SHA-256, in hex, of the canonical JSON of `parts`.

    Args:
        parts: JSON values and contracts of `diffusion_api`, which count in their wire form. Order matters between parts, not in dicts.

    Raises:
        TypeError: A part is neither (a path, a set, a tensor): digest what decides the result instead. That is a bug of the caller.
        ValueError: A number is NaN or infinite.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_wire_form)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_tree(folder: Path) -> str:
    """Return one SHA-256, in hex, of the relative paths and bytes of all files below `folder`; times and modes do not count."""
    return digest_of([[path.relative_to(folder).as_posix(), digest_of_file(path)] for path in files_below(folder)])


def _wire_form(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form; pass plain JSON values or contracts")
