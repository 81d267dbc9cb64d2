"""The store: one folder per stage result, named by the digest of what decides it.

An artifact is visible only when it is complete: it is built in a `.partial` folder that one process at a time may hold, flushed, and
renamed. Nothing here knows what a stage does.

    ROOT/artifacts/<stage>-<digest>            complete results
    ROOT/artifacts/<stage>-<digest>.partial    being built, or left by a builder that was killed
    ROOT/locks/*.lock                          see `locks.py`
    ROOT/corrupt/<stage>-<digest>-<n>          found corrupted and moved aside, for a person to look at
    ROOT/trash/                                on its way out
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from engine_builder.store.checksums import CHECKSUMS, differences, measure, read_checksums, write_checksums
from engine_builder.store.disk import full_disk_is_transient, size_of_tree, sync, sync_tree
from engine_builder.store.locks import OnWait, file_lock, shared_file_lock, try_file_lock

DIGEST_LENGTH = 16
"""Hex digits of a digest that a folder's name carries: 64 bits, so 10,000 artifacts collide with a chance of 3e-12."""
ARTIFACT_NAME = re.compile(rf"[a-z0-9][a-z0-9_.-]*-[0-9a-f]{{{DIGEST_LENGTH}}}")
TIMING_CACHE = "timing-cache"
BUILDS_LOCK = "builds"
"""Lock that every build shares and a removal of what builds use has alone."""


@dataclass(frozen=True)
class Artifact:
    """A complete result."""

    name: str
    """Folder name, `<stage>-<digest>`."""
    path: Path
    """The folder."""
    size_bytes: int
    """What it holds on this disk; links count as themselves."""
    last_used: float
    """When it was built or last reused, in seconds since 1970."""


@dataclass(frozen=True)
class Built:
    """What `Store.obtain` gives."""

    path: Path
    """The artifact's folder; do not write to it."""
    reused: bool
    """True where it was in the store already."""


class Store:
    """A content-addressed store in a local folder or on a volume that several builders mount; `bucket_store.py` adds a bucket to it.

    Needs of the file system: atomic rename, fsync, and `flock` (see `locks.file_lock` for NFS).
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        (self.root / "artifacts").mkdir(parents=True, exist_ok=True)

    def path(self, stage_name: str, digest: str) -> Path:
        """Return where an artifact lies once it is complete."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", stage_name) or not re.fullmatch(r"[0-9a-f]{16,64}", digest):
            raise ValueError(f"not a stage name and a hex digest: {stage_name!r}, {digest!r}")
        return self.root / "artifacts" / f"{stage_name}-{digest[:DIGEST_LENGTH]}"

    def has(self, stage_name: str, digest: str) -> bool:
        """Tell whether an artifact is complete."""
        return self.path(stage_name, digest).is_dir()

    def find(self, stage_name: str, digest: str, *, full: bool = False) -> Path | None:
        """Return an artifact that is complete and sound, and note its use; a corrupted one is moved to `corrupt/`.

        Args:
            stage_name: Stage.
            digest: Digest of what decides the result.
            full: Hash every file instead of comparing sizes.
        """
        path = self.path(stage_name, digest)
        if not path.is_dir():
            return None
        if _is_sound(path, full=full):
            return _used(path)
        # Looked at again by whoever has its lock alone: meanwhile another process may have moved it, and made a fresh one.
        descriptor = try_file_lock(self._lock_path(path.name))
        if descriptor is None:
            return None  # Somebody is at it.
        try:
            return self._find_locked(path, full=full)
        finally:
            os.close(descriptor)

    def _find_locked(self, path: Path, *, full: bool = False) -> Path | None:
        """Do what `find` does, for who has the artifact's lock."""
        if not path.is_dir():
            return None
        if _is_sound(path, full=full):
            return _used(path)
        self._move(path, "corrupt")
        return None

    def obtain(
        self, stage_name: str, digest: str, build: Callable[[Path], None], *, resume: bool = False, on_wait: OnWait | None = None
    ) -> Built:
        """Return an artifact, built by `build(partial)` where it is not there; of several processes one builds and the others wait."""
        if (path := self.find(stage_name, digest)) is not None:
            return Built(path, reused=True)
        target = self.path(stage_name, digest)
        with file_lock(self._lock_path(target.name), on_wait):
            # Whoever was waited for built it here; to look elsewhere needs this very lock.
            if (path := self._find_locked(target)) is not None:
                return Built(path, reused=True)
            with self._partial_of(target, resume=resume) as partial:
                build(partial)
        return Built(target, reused=False)

    @contextmanager
    def building(self, stage_name: str, digest: str, *, resume: bool = False, on_wait: OnWait | None = None) -> Iterator[Path]:
        """Hold the artifact's `.partial` folder; leaving the block without an error flushes it and gives it its final name.

        Args:
            stage_name: Stage.
            digest: Digest of what decides the result.
            resume: Keep what a killed or failed builder left in the folder (a download goes on); otherwise it starts empty, and an
                error removes it.
            on_wait: Called once if another process builds the same artifact; this one then waits. Ask `find` again after that, or
                use `obtain`, which does.

        A builder that knows its checksums already (a download) may write `checksums.json` itself; what is not in it is added.

        Raises:
            TransientError: The disk is full.
        """
        target = self.path(stage_name, digest)
        with file_lock(self._lock_path(target.name), on_wait), self._partial_of(target, resume=resume) as partial:
            yield partial

    @contextmanager
    def lock(self, key: str, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lock of an engine key, so that a second builder of it waits and then reuses; see `locks.file_lock`.

        Meanwhile `alone` is refused, so that nothing that this build uses is dropped.
        """
        with shared_file_lock(self._lock_path(BUILDS_LOCK)), file_lock(self._lock_path(f"key-{key}"), on_wait):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep builds from beginning while the block runs; yields False, and keeps nobody, where one runs."""
        descriptor = try_file_lock(self._lock_path(BUILDS_LOCK))
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def remove(self, name: str, on_wait: OnWait | None = None) -> bool:
        """Remove an artifact, after whoever builds it; tell whether it was there.

        Args:
            name: Folder name, `<stage>-<digest>`.
            on_wait: Called for each builder that is waited for.

        Raises:
            ValueError: That is no name of an artifact.
        """
        if not ARTIFACT_NAME.fullmatch(name):
            raise ValueError(f"not the name of an artifact: {name!r}")
        path = self.root / "artifacts" / name
        keys = sorted((self.root / "locks").glob(f"key-{name[-DIGEST_LENGTH:]}*.lock"))
        with ExitStack() as locks:
            for lock in (*keys, self._lock_path(name)):
                locks.enter_context(file_lock(lock, on_wait))
            if not path.is_dir():
                return False
            self._remove(path)
            return True

    def sweep(self) -> None:
        """Remove what dead builders left, and what was moved aside."""
        for partial in (self.root / "artifacts").glob("*.partial"):
            descriptor = try_file_lock(self._lock_path(partial.stem))
            if descriptor is None:
                continue  # Its builder lives.
            try:
                self._remove(partial)
            finally:
                os.close(descriptor)
        for place in ("corrupt", "trash"):
            shutil.rmtree(self.root / place, ignore_errors=True)

    def verify(self, path: Path, *, full: bool = False) -> tuple[str, ...]:
        """Return what is wrong with an artifact, one sentence each; sizes only unless `full`."""
        return differences(path, full=full)

    def set_aside(self, path: Path) -> Path:
        """Move an artifact to `corrupt/`, so that the next build makes it anew, and return where it is now."""
        return self._move(path, "corrupt")

    def artifacts(self) -> tuple[Artifact, ...]:
        """List complete artifacts, the longest unused first; a folder with another name than theirs is somebody's own."""
        paths = [path for path in (self.root / "artifacts").iterdir() if ARTIFACT_NAME.fullmatch(path.name) and path.is_dir()]
        found = [Artifact(path.name, path, size_of_tree(path), _last_used(path)) for path in paths]
        return tuple(sorted(found, key=lambda artifact: (artifact.last_used, artifact.name)))

    def known(self) -> tuple[Artifact, ...]:
        """List complete artifacts wherever they lie, the longest unused first."""
        return self.artifacts()

    def read(self, artifact: Artifact, file: str) -> bytes:
        """Return a small file of an artifact that `known` gave.

        Raises:
            OSError: It is not there.
        """
        return (artifact.path / file).read_bytes()

    @property
    def timing_cache(self) -> Path:
        """Folder in which compilers keep what they measured, from build to build."""
        return self.root / TIMING_CACHE

    @contextmanager
    def timings(self) -> Iterator[None]:
        """Have the timings of earlier builds in `timing_cache` while the block runs, and keep those that it adds."""
        yield

    def prune(self, *, max_bytes: int, keep: Collection[str] = ()) -> tuple[Artifact, ...]:
        """Remove leftovers of dead builders, then the longest unused artifacts until the rest is small enough.

        Args:
            max_bytes: What may stay, besides what is kept anyway.
            keep: Folder names (`<stage>-<digest>`) that stay, for example those of the engines being served and of running builds.

        Returns:
            The artifacts that were removed.
        """
        self.sweep()
        artifacts = self.artifacts()
        total, removed = sum(artifact.size_bytes for artifact in artifacts), []
        for artifact in artifacts:
            if total <= max_bytes:
                break
            if artifact.name not in keep:
                self._remove(artifact.path)
                total -= artifact.size_bytes
                removed.append(artifact)
        return tuple(removed)

    @contextmanager
    def _partial_of(self, target: Path, *, resume: bool) -> Iterator[Path]:
        partial = target.with_name(f"{target.name}.partial")
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        with full_disk_is_transient(partial):
            partial.mkdir(exist_ok=resume)
            try:
                yield partial
                self._publish(partial, target)
            except BaseException:  # Whatever went wrong, nothing half-done stays unless a download is to go on; then it is raised.
                if not resume:
                    shutil.rmtree(partial, ignore_errors=True)
                raise

    def _publish(self, partial: Path, target: Path) -> None:
        known = read_checksums(partial) if (partial / CHECKSUMS).is_file() else {}
        write_checksums(partial, measure(partial, known))
        sync_tree(partial)
        if target.is_dir():
            self._remove(partial)  # Someone built it while we waited for the lock; by its digest it is the same.
        else:
            partial.rename(target)
        sync(target.parent)

    def _remove(self, path: Path) -> None:
        shutil.rmtree(self._move(path, "trash"), ignore_errors=True)  # Renamed first: a kill leaves no half artifact.

    def _move(self, path: Path, place: str) -> Path:
        aside = self.root / place / f"{path.name}-{uuid4().hex[:8]}"
        aside.parent.mkdir(exist_ok=True)
        return path.rename(aside)

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"


def _is_sound(path: Path, *, full: bool) -> bool:
    try:
        return not differences(path, full=full)
    except FileNotFoundError:  # Moved away while it was looked at.
        return False


def _used(path: Path) -> Path:
    with suppress(OSError):  # A store mounted read-only is fine to use; it only keeps no record of it.
        os.utime(path / CHECKSUMS)
    return path


def _last_used(path: Path) -> float:
    marker = path / CHECKSUMS
    return (marker if marker.is_file() else path).stat().st_mtime
