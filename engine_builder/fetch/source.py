"""What every place that holds checkpoints can do; one module a protocol implements it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.fetch.http import redacted
from engine_builder.store import digest_of

OnBytes = Callable[[int], None]
"""Told how many bytes came; negative where some must come again."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a checkpoint, as its place describes it."""

    path: str
    """Relative to the checkpoint, with `/`."""
    size: int | None
    """Bytes; None where the place does not say."""
    sha256: str | None = None
    """SHA-256, in hex, where the place knows it."""
    md5: str | None = None
    """MD5, in hex, where the place knows it (S3's ETag of a plain upload)."""
    git_blob: str | None = None
    """SHA-1 of git's blob, in hex, where the place knows it (small files of a hub)."""
    tag: str = ""
    """What changes whenever the file does (an ETag)."""


class Source(Protocol):
    """A place that holds a checkpoint or a student's weights."""

    def revision(self) -> str | None:
        """Return the commit or digest that names these bytes and no others; None where the place has none and the files must do."""

    def files(self) -> tuple[RemoteFile, ...]:
        """List the files of that revision."""

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the chosen files with all that the place can say of each, which may cost a request or a reading each."""

    def read(self, path: str) -> bytes:
        """Return a small file."""

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Write `part`, going on where it ends if it is there.

        Raises:
            TransientError: The connection broke; call again, it goes on.
            InvalidJobError: The place refuses; calling again does not help.
        """

    def licence(self) -> str:
        """Return the licence's name where the place knows it, else an empty string."""


def safe_path(path: str) -> str:
    """Return `path` if it stays below the folder it is joined to.

    Raises:
        InvalidModelError: It is absolute or climbs out (`..`): whoever wrote the list of files must be asked why.
    """
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable():
        raise InvalidModelError(f"the checkpoint names a file outside its folder, {path!r}; it was not written")
    return pure.as_posix()


def content_revision(files: Collection[RemoteFile]) -> str:
    """Return one digest of names, sizes and what is known of the bytes, for places without commits."""
    return digest_of([[file.path, file.size, file.sha256 or file.md5 or file.tag] for file in sorted(files, key=lambda file: file.path)])


def check_pin(uri: str, pinned: str | None, found: str) -> str:
    """Return `found`, which must be the pinned revision if there is one.

    Raises:
        InvalidJobError: The content is another.
    """
    if pinned not in (None, found):
        raise InvalidJobError(f"{redacted(uri)} now holds revision {found}, not {pinned}; set model.revision to it, or leave it out")
    return found


def first_of(credentials: Mapping[str, str], *names: str) -> str | None:
    """Return the first of a secret's keys that is there, without the line break that `kubectl create secret --from-file` keeps."""
    return next((credentials[name].strip() for name in names if credentials.get(name)), None)
