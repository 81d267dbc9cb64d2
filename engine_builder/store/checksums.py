"""`checksums.json` of an artifact: what was written, so that a disk's or a person's change to it is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine_builder.store.digests import digest_of_file, files_below

CHECKSUMS = "checksums.json"
"""File in every artifact: `{"formatVersion": 1, "files": {"a/b.bin": {"size": 3, "sha256": "…"}}}`."""


class FileSum(NamedTuple):
    """What a file must be."""

    size: int
    """Bytes."""
    sha256: str
    """SHA-256, in hex."""


def measure(folder: Path, known: Mapping[str, FileSum] | None = None) -> dict[str, FileSum]:
    """Return size and SHA-256 of every file below `folder` by relative path, without `checksums.json` itself.

    Args:
        folder: Any folder.
        known: Files whose bytes were verified when they came; they are taken as they are while their size still fits.
    """
    sums, known = {}, known or {}
    for path in files_below(folder):
        if path != folder / CHECKSUMS:
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            sums[name] = known[name] if name in known and known[name].size == size else FileSum(size, digest_of_file(path))
    return sums


def write_checksums(folder: Path, sums: Mapping[str, FileSum]) -> None:
    """Write `checksums.json`."""
    files = {path: entry._asdict() for path, entry in sorted(sums.items())}
    (folder / CHECKSUMS).write_text(json.dumps({"formatVersion": 1, "files": files}, indent=1) + "\n")


def read_checksums(folder: Path) -> dict[str, FileSum]:
    """Read `checksums.json`.

    Raises:
        ValueError: It is not there, or not in this format.
    """
    try:
        files: dict[str, Any] = json.loads((folder / CHECKSUMS).read_text())["files"]
        return {path: FileSum(int(entry["size"]), str(entry["sha256"])) for path, entry in files.items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{CHECKSUMS} cannot be read: {error}") from error


def differences(folder: Path, *, full: bool = False) -> tuple[str, ...]:
    """Compare an artifact with its `checksums.json`.

    Args:
        folder: The artifact.
        full: Hash every file; otherwise only sizes are compared, which costs no reading.

    Returns:
        One sentence a difference; empty where the artifact is sound.
    """
    try:
        expected = read_checksums(folder)
    except ValueError as error:
        return (str(error),)
    problems = [problem for path, entry in expected.items() if (problem := _difference(folder / path, path, entry, full=full))]
    present = {path.relative_to(folder).as_posix() for path in files_below(folder)} - {CHECKSUMS}
    problems += [f"{path} was added" for path in sorted(present - expected.keys())]
    return tuple(problems)


def _difference(path: Path, name: str, expected: FileSum, *, full: bool) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != expected.size:
        return f"{name} has {size} bytes instead of {expected.size}"
    if full and digest_of_file(path) != expected.sha256:
        return f"{name} has changed: its SHA-256 is not {expected.sha256}"
    return None
