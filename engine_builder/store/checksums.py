"""Writes and compares the `checksums.json` of artifacts; its format and what readers need are in `engine_runtime.checksums`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from engine_runtime.checksums import CHECKSUMS, FileSum, damage, digest_of_file, files_below, read_checksums

__all__ = ["CHECKSUMS", "FileSum", "differences", "measure", "read_checksums", "write_checksums"]


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


def differences(folder: Path, *, full: bool = False) -> tuple[str, ...]:
    """Compare an artifact with its `checksums.json`, files that were added included.

    Args:
        folder: The artifact.
        full: Hash every file; otherwise only sizes are compared, which costs no reading.

    Returns:
        One sentence a difference; empty where the artifact is sound.
    """
    problems = damage(folder, hashed_bytes=None if full else 0)
    try:
        expected = read_checksums(folder)
    except ValueError:
        return problems
    present = {path.relative_to(folder).as_posix() for path in files_below(folder)} - {CHECKSUMS}
    return (*problems, *(f"{path} was added" for path in sorted(present - expected.keys())))
