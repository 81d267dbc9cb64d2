"""Checkpoints on a disk: `file://` on this machine and `pvc://claim/path` on a volume mounted into the pod; linked, never copied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from engine_builder.errors import InvalidJobError
from engine_builder.fetch.source import OnBytes, RemoteFile
from engine_builder.store.digests import digest_of_file, files_below

PVC_ROOT_VARIABLE = "DIFFUSION_PVC_ROOT"
FILES_VARIABLE = "DIFFUSION_FILES_DIR"
"""Set by the builder image, whose own checkpoints lie there."""


class LocalSource:
    """A folder or one file.

    Its revision is a digest of the bytes, not of modification times: times differ between machines and after each `git clone`, and
    would keep equal checkpoints from sharing an engine. Each file is read once in a process while its time and size stay.
    """

    def __init__(self, root: Path, uri: str) -> None:
        if not root.exists():
            raise InvalidJobError(f"{uri}: there is no {root.absolute()}; {_advice(uri)}")
        self.root = root.resolve()

    def revision(self) -> None:
        """Return nothing: the digest of the files is the revision."""

    def files(self) -> tuple[RemoteFile, ...]:
        """List the files."""
        if self.root.is_file():
            return (RemoteFile(self.root.name, self.root.stat().st_size),)
        return tuple(RemoteFile(path.relative_to(self.root).as_posix(), path.stat().st_size) for path in files_below(self.root))

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the files with their digests, which reads them."""
        return tuple(replace(file, sha256=_digest_of(self._path(file.path))) for file in files)

    def read(self, path: str) -> bytes:
        """Return a file."""
        return self._path(path).read_bytes()

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Link the file."""
        part.unlink(missing_ok=True)
        part.symlink_to(self._path(file.path))
        on_bytes(file.size or 0)

    def licence(self) -> str:
        """Return nothing: the files say it."""
        return ""

    def _path(self, path: str) -> Path:
        return self.root if self.root.is_file() else self.root / path


def folder_of_files(job: Path) -> Path:
    """Return where relative `file://` paths of a job file start: `$DIFFUSION_FILES_DIR`, or the job file's folder."""
    return Path(os.environ.get(FILES_VARIABLE) or job.parent).resolve()


def path_of_file_uri(uri: str, base_folder: Path) -> Path:
    """Return the path of `file:///absolute`, `file://./relative`, `file://relative` or `file:relative`, the latter from `base_folder`."""
    return base_folder / uri.removeprefix("file:").removeprefix("//")


def path_of_pvc_uri(uri: str) -> Path:
    """Return where `pvc://claim/path` is mounted: `$DIFFUSION_PVC_ROOT/claim/path`.

    Raises:
        InvalidJobError: This is not a pod, or the path leaves the volume.
    """
    root = os.environ.get(PVC_ROOT_VARIABLE)
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    if not root:
        raise InvalidJobError(f"{uri} needs a cluster: {PVC_ROOT_VARIABLE} is not set here; use file:// on this machine")
    volume = (Path(root) / claim).resolve()
    place = (volume / path).resolve()
    if claim in ("", ".", "..") or not place.is_relative_to(volume):
        raise InvalidJobError(f"{uri} leaves its volume; name a path inside it")
    return place


def _advice(uri: str) -> str:
    folder = os.environ.get(FILES_VARIABLE)
    if not folder or uri.startswith("pvc:"):
        return "check the path, and in a pod that the volume is mounted"
    held = sorted(f"file://{index.parent.relative_to(folder).as_posix()}" for index in Path(folder).rglob("model_index.json"))
    others = "pvc://claim/path, hf://, s3://, https:// or oci://"
    return f"in a cluster file:// names what the builder image holds ({', '.join(held) or 'nothing'}); for other checkpoints use {others}"


def _digest_of(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified_ns: int) -> str:  # The last two are only there to notice a change.
    return digest_of_file(path)
