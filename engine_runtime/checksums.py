"""`checksums.json` of an artifact: what was written, so that a disk's or a person's change to it is found. The builder writes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

CHECKSUMS = "checksums.json"
"""File in every artifact: `{"formatVersion": 1, "files": {"a/b.bin": {"size": 3, "sha256": "…"}}}`."""


class FileSum(NamedTuple):
    """What a file must be."""

    size: int
    """Bytes."""
    sha256: str
    """SHA-256, in hex."""


def read_checksums(folder: Path) -> dict[str, FileSum]:
    """Read `checksums.json`.

    Raises:
        ValueError: It is not there, or not in this format.
    """
    try:
        text = (folder / CHECKSUMS).read_bytes()
    except OSError as error:
        raise ValueError(f"{CHECKSUMS} cannot be read: {error}") from error
    return parse_checksums(text)


def parse_checksums(text: bytes) -> dict[str, FileSum]:
    """Read the content of a `checksums.json`.

    Raises:
        ValueError: It is not in this format.
    """
    try:
        files: dict[str, Any] = json.loads(text)["files"]
        return {path: FileSum(int(entry["size"]), str(entry["sha256"])) for path, entry in files.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{CHECKSUMS} cannot be read: {error}") from error


def damage(folder: Path, *, hashed_bytes: int | None = 0) -> tuple[str, ...]:
    """Compare the files of an artifact with its `checksums.json`; what was added is not looked at.

    Args:
        folder: The artifact.
        hashed_bytes: Files of at most this size are hashed, larger ones compared by size alone, which costs no reading; None: every
            file is hashed.

    Returns:
        One sentence for each file that is missing or changed; empty where all are as they were written.
    """
    try:
        expected = read_checksums(folder)
    except ValueError as error:
        return (str(error),)
    found = (
        _problem(folder / path, path, entry, full=hashed_bytes is None or 0 < entry.size <= hashed_bytes)
        for path, entry in expected.items()
    )
    return tuple(problem for problem in found if problem)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256, in hex, of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return all files below `folder`, links to files included, in order of their relative paths."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).as_posix())


def _problem(path: Path, name: str, expected: FileSum, *, full: bool) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != expected.size:
        return f"{name} has {size} bytes instead of {expected.size}"
    if full and digest_of_file(path) != expected.sha256:
        return f"{name} has changed: its SHA-256 is not {expected.sha256}"
    return None
