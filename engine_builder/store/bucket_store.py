"""A store whose folder is this machine's copy of a bucket: what is not here is looked up there, and what is finished here is kept there.

A build that is killed goes on from the bucket on any machine, and an engine that one machine has built is found by all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine_builder.errors import InvalidJobError, TransientError
from engine_builder.store.artifacts import ARTIFACT_NAME, TIMING_CACHE, Artifact, Store
from engine_builder.store.disk import sync, sync_tree
from engine_builder.store.locks import OnWait, file_lock
from engine_runtime.bucket import (
    ArtifactDamagedError,
    ArtifactMissingError,
    Bucket,
    BucketRefusedError,
    BucketUnavailableError,
    StoredArtifact,
)
from engine_runtime.checksums import files_below

LEFTOVER_SECONDS = 86_400.0
"""What a killed upload left is used by the build that is tried again; after so long nobody comes back for it."""

Say = Callable[[str], None]
"""Told what is brought and kept, and what went wrong without ending the build."""


class BucketStore(Store):
    """A local store over a bucket.

    Stage results only save time: where one of them cannot be brought or kept for the moment, the build goes on without.
    """

    def __init__(self, root: Path, bucket: Bucket, *, required: Collection[str], local: Collection[str], say: Say) -> None:
        """Open the store.

        Args:
            root: This machine's folder.
            bucket: The bucket.
            required: Stages whose result must be in the bucket for the build to succeed.
            local: Stages whose result never goes there, for it is brought from elsewhere as fast.
            say: Takes sentences for the log.
        """
        super().__init__(root)
        self._bucket, self._required, self._local, self._say = bucket, frozenset(required), frozenset(local), say
        self._kept: set[str] = set()

    def find(self, stage_name: str, digest: str, *, full: bool = False) -> Path | None:
        """Return an artifact that is sound, from the bucket where it is not here; one that is here alone is kept in the bucket too.

        Where `full` is set and the bucket must have it, it is hashed there too, and what is damaged there is written anew from here.
        Where the bucket has another one under its name, that one is returned.

        Raises:
            TransientError: The bucket cannot be reached.
            InvalidJobError: It refuses.
        """
        path = super().find(stage_name, digest, full=full)
        if stage_name in self._local or (path is not None and self._keep(path, full=full)):
            return path
        target = self.path(stage_name, digest)
        with file_lock(self._lock_path(target.name), lambda holder: self._say(f"{holder} is at {target.name}; waiting")):
            if path is None:
                return self._find_locked(target, full=full) or self._bring(target)
            self._take_instead(target)
        return target

    def set_aside(self, path: Path) -> Path:
        """Move an artifact to `corrupt/`, and take it out of the bucket, so that the next build makes it anew."""
        with _as_build_errors():
            self._bucket.delete(path.name)
        return super().set_aside(path)

    def remove(self, name: str, on_wait: OnWait | None = None) -> bool:
        """Remove an artifact here and in the bucket; tell whether it was in either."""
        was_here = super().remove(name, on_wait)
        with _as_build_errors():
            return self._bucket.delete(name) or was_here

    def sweep(self) -> None:
        """Remove what dead builders left, here and in the bucket."""
        super().sweep()
        with _as_build_errors():
            for each in self._stored():
                if not each.is_complete and each.last_used < time.time() - LEFTOVER_SECONDS:
                    self._bucket.delete(each.name)

    def known(self) -> tuple[Artifact, ...]:
        """List complete artifacts, those of the bucket and those that are here alone, the longest unused first."""
        found = {artifact.name: artifact for artifact in self.artifacts()}
        with _as_build_errors():
            for each in self._stored():
                if each.is_complete:
                    last_used = max(each.last_used, found[each.name].last_used if each.name in found else 0.0)
                    found[each.name] = Artifact(each.name, self.root / "artifacts" / each.name, each.size_bytes, last_used)
        return tuple(sorted(found.values(), key=lambda artifact: (artifact.last_used, artifact.name)))

    def read(self, artifact: Artifact, file: str) -> bytes:
        """Return a small file of an artifact, from here or from the bucket.

        Raises:
            FileNotFoundError: It is in neither.
        """
        if artifact.path.is_dir():
            return super().read(artifact, file)
        try:
            with _as_build_errors():
                return self._bucket.read(artifact.name, file)
        except (ArtifactMissingError, ArtifactDamagedError) as error:
            raise FileNotFoundError(str(error)) from error

    @contextmanager
    def timings(self) -> Iterator[None]:
        """Bring the timings of earlier builds, and keep those that this one adds; without them builds only take longer."""
        with self._optional("timings of earlier builds are not used"):
            self._bucket.download_loose(TIMING_CACHE, self.timing_cache)
        before = self._timing_files()
        try:
            yield
        finally:
            with self._optional("its timings are not kept"):
                for file, written in self._timing_files().items():
                    if before.get(file) != written:
                        self._bucket.upload_loose(TIMING_CACHE, file)

    def _stored(self) -> Iterator[StoredArtifact]:
        """What is an artifact by its name; whatever else lies beside them in the bucket is somebody's own."""
        return (each for each in self._bucket.artifacts() if ARTIFACT_NAME.fullmatch(each.name))

    def _publish(self, partial: Path, target: Path) -> None:
        super()._publish(partial, target)
        self._kept.discard(target.name)  # Of what was built before: it was set aside, removed or damaged, in the bucket too.
        if not self._keep(target):
            self._take_instead(target)

    def _bring(self, target: Path) -> Path | None:
        """Download an artifact under its lock; None where it is not in the bucket, or must be made anew."""
        if _stage(target) in self._required:
            with _as_build_errors():
                return self._download(target)
        path = None
        with self._optional(f"{target.name} may be made anew"):
            path = self._download(target)
            if path is not None:
                self._bucket.touch(path.name, path)  # A removal elsewhere drops what has been unused for long.
        return path

    def _download(self, target: Path) -> Path | None:
        shutil.rmtree(target.with_name(f"{target.name}.partial"), ignore_errors=True)  # Of a build: no file of it is the bucket's.
        try:
            self._bucket.download(target.name, target, flush=sync_tree)
        except ArtifactMissingError:
            return None
        except ArtifactDamagedError as error:
            self._say(f"{error}; it is removed there and made anew")
            self._bucket.delete(target.name)
            return None
        sync(target.parent)
        self._kept.add(target.name)
        self._say(f"{target.name} came from {self._bucket.uri}")
        return target

    def _keep(self, path: Path, *, full: bool = False) -> bool:
        """Keep an artifact in the bucket; False where that has another one under its name, and must have the one that is reported."""
        stage = _stage(path)
        if stage in self._local or path.name in self._kept:
            return True
        if stage in self._required:
            with _as_build_errors():
                return self._upload(path, full=full)
        with self._optional(f"{path.name} is on this machine alone"):
            self._upload(path)
        return True

    def _upload(self, path: Path, *, full: bool = False) -> bool:
        if self._bucket.upload(path.name, path, full=full):
            self._say(f"{path.name} is kept in {self._bucket.uri}")
        elif _stage(path) in self._required and not self._bucket.holds(path.name, path):
            return False
        self._kept.add(path.name)
        return True

    def _take_instead(self, path: Path) -> None:
        """Replace an artifact, under its lock, by the bucket's, which was there first and is what serving pods get."""
        self._say(f"another machine was the first to keep {path.name} in {self._bucket.uri}: that one stays")
        aside = self._move(path, "trash")
        with _as_build_errors():
            try:
                came = self._download(path)
            finally:
                if path.is_dir():
                    shutil.rmtree(aside, ignore_errors=True)
                else:
                    aside.rename(path)
            if came is None:  # Removed there by now, or damaged.
                self._upload(path)

    @contextmanager
    def _optional(self, otherwise: str) -> Iterator[None]:
        """Go on where the bucket cannot be reached; one that refuses ends the build before hours are spent on it."""
        try:
            with _as_build_errors():
                yield
        except (TransientError, ArtifactMissingError) as error:
            self._say(f"{error}; {otherwise}")

    def _timing_files(self) -> Mapping[Path, int]:
        if not self.timing_cache.is_dir():
            return {}
        return {file: file.stat().st_mtime_ns for file in files_below(self.timing_cache) if file.suffix == ".timing"}


def open_bucket_store(root: Path, uri: str, *, required: Collection[str], local: Collection[str], say: Say) -> BucketStore:
    """Open a folder as the copy of the bucket at `uri`; see `BucketStore`."""
    with _as_build_errors():
        bucket = Bucket(uri)
    return BucketStore(root, bucket, required=required, local=local, say=say)


@contextmanager
def _as_build_errors() -> Iterator[None]:
    try:
        yield
    except BucketUnavailableError as error:
        raise TransientError(f"{error}, then try again") from error
    except BucketRefusedError as error:
        raise InvalidJobError(str(error)) from error


def _stage(path: Path) -> str:
    return path.name.rpartition("-")[0]
