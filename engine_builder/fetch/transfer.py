"""Brings files from a source: several at once, resumed, retried, verified, and visible under their name only when all that is true."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engine_builder.errors import InvalidModelError, TransientError
from engine_builder.fetch.source import OnBytes, RemoteFile, Source, content_revision, safe_path
from engine_builder.store import FileSum, digest_of_file, require_free_space
from engine_builder.store.disk import full_disk_is_transient

ATTEMPTS = 6
"""Tries without a byte of progress before a build gives up; with the pauses, half a minute."""
PAUSE_SECONDS = 1.0
"""Pause after the first failure; it doubles each time."""
DAMAGED_ATTEMPTS = 2
"""How often a file may arrive with another checksum than its source gives before the source is held to be wrong."""
PARALLEL_FILES = 4
HUB_WORK_FOLDER = ".hub"
"""What the hub's client keeps to resume, beside each file; removed when all files are there."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


class Tally:
    """Adds up the bytes of several downloads."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress, self._lock = 0, total, progress, threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes, and tell."""
        with self._lock:
            self._done += count
            if count and self._progress is not None:
                self._progress(self._done, max(self._total, self._done))


def bring(source: Source, files: Sequence[RemoteFile], destination: Path, progress: Progress | None = None) -> dict[str, FileSum]:
    """Bring files below `destination`, each under its own path, and return their sizes and SHA-256.

    What an earlier, killed call has brought is used.

    Raises:
        TransientError: The network or the disk; try again.
        InvalidModelError: A file does not have its source's checksum, or wants to lie outside `destination`.
        InvalidJobError: The source refuses.
    """
    targets = {file: destination / safe_path(file.path) for file in files}
    tally = Tally(sum(file.size or 0 for file in files), progress)
    with full_disk_is_transient(destination), ThreadPoolExecutor(PARALLEL_FILES) as pool:
        futures = {file.path: pool.submit(_bring_one, source, file, target, tally.add) for file, target in targets.items()}
        try:
            return {path: future.result() for path, future in futures.items()}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def require_space_for(files: Iterable[RemoteFile], destination: Path) -> None:
    """Refuse to begin a download that the disk cannot take; what is there already is not counted.

    Raises:
        TransientError: Says how much is missing and where.
    """
    require_free_space(destination, sum(max(0, (file.size or 0) - _present(file, destination)) for file in files))


def retried(action: Callable[[], T], progressed: Callable[[], object] = lambda: None) -> T:
    """Call `action` again, after pauses that double, while it raises TransientError; progress starts the count anew."""
    attempt, state = 0, progressed()
    while True:
        try:
            return action()
        except TransientError:
            now = progressed()
            attempt, state = (1 if now != state else attempt + 1), now
            if attempt >= ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))


def append_chunks(part: Path, open_at: Callable[[int], tuple[int, Iterator[bytes]]], on_bytes: OnBytes) -> None:
    """Go on with `part` from where it ends.

    Args:
        part: May be there.
        open_at: Takes the offset that is wanted, returns the one that the server gives (0 where it cannot resume) and the bytes.
        on_bytes: Told of each chunk.
    """
    wanted = part.stat().st_size if part.is_file() else 0
    offset, chunks = open_at(wanted)
    on_bytes(offset - wanted)
    with part.open("r+b" if wanted else "wb") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        for chunk in chunks:
            stream.write(chunk)
            on_bytes(len(chunk))


def _bring_one(source: Source, file: RemoteFile, target: Path, on_bytes: OnBytes) -> FileSum:
    if target.is_file() and file.size in (None, target.stat().st_size):  # It got its name only after it had been verified.
        digest = digest_of_file(target)
        if file.sha256 in (None, digest):
            on_bytes(target.stat().st_size)
            return FileSum(target.stat().st_size, digest)
    part = _part_of(file, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    on_bytes(_size(part))
    for _ in range(DAMAGED_ATTEMPTS):
        retried(lambda: _fetch_whole(source, file, part, on_bytes), lambda: _size(part))
        digest = file.sha256 if part.is_symlink() and file.sha256 else digest_of_file(part)  # A link's digest was just computed.
        if (problem := _damage(file, part, digest)) is None:
            part.rename(target)
            return FileSum(target.stat().st_size, digest)
        on_bytes(-_size(part))
        part.unlink()
    raise InvalidModelError(f"{file.path} came {DAMAGED_ATTEMPTS} times and each time {problem}: the source is damaged, upload it again")


def _fetch_whole(source: Source, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
    if file.size is not None and _size(part) > file.size:
        on_bytes(-_size(part))
        part.unlink()
    if file.size is None or _size(part) < file.size or not part.is_file():
        source.fetch(file, part, on_bytes)
    if file.size is not None and _size(part) < file.size:
        raise TransientError(f"{file.path} ended after {_size(part)} of {file.size} bytes")


def _damage(file: RemoteFile, part: Path, sha256: str) -> str | None:
    size = part.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes instead of {file.size}"
    if file.sha256 is not None and sha256 != file.sha256:
        return f"its SHA-256 is {sha256} instead of {file.sha256}"
    if file.md5 is not None and _hash_of(part, hashlib.md5(usedforsecurity=False)) != file.md5:
        return f"its MD5 is not {file.md5}"
    header = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)  # Source: git-hash-object(1).
    if file.git_blob is not None and _hash_of(part, header) != file.git_blob:
        return f"its git blob is not {file.git_blob}"
    return None


def _hash_of(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _part_of(file: RemoteFile, target: Path) -> Path:
    """Return where a file grows; another version of it grows elsewhere, so that two are never glued together."""
    return target.with_name(f"{target.name}.{content_revision([file])[:8]}.part")


def _present(file: RemoteFile, destination: Path) -> int:
    target = destination / safe_path(file.path)
    return max(_size(target), _size(_part_of(file, target)))
