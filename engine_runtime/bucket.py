"""A bucket of S3, or of what speaks its protocol, as an engine store: builders fill it, serving pods read it.

    PREFIX/artifacts/<stage>-<digest>/<SHA-256>        the bytes of one file of an artifact
    PREFIX/artifacts/<stage>-<digest>/checksums.json   which files those are; written last, so what has it is complete
    PREFIX/timing-cache/<file>                         loose files

Bytes lie under their own SHA-256: two builders that upload one artifact at once never mix their files, a killed upload goes on where it
stopped, and no path is ever made of an object's key. Endpoint, region, credentials and certificates are found by boto3 itself.

BucketError
├── BucketUnavailableError   the network, throttling, a full disk: try again
├── BucketRefusedError       no such bucket, no right to it, a wrong setting: change that first
├── ArtifactMissingError     the artifact is not in the bucket, or not complete
└── ArtifactDamagedError     it is not as it was written: build it again
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from s3transfer import exceptions as transfer_errors

from engine_runtime.checksums import CHECKSUMS, FileSum, digest_of_file, files_below, parse_checksums, read_checksums

ARTIFACTS = "artifacts"
PARALLEL_FILES = 4
ATTEMPTS = 6
DAMAGED_ATTEMPTS = 2
"""How often a file may arrive with another checksum than it was written with before the bucket is held to be wrong."""
RESERVE_BYTES = 64 * 2**20
TRANSFER = TransferConfig(multipart_threshold=32 * 2**20, multipart_chunksize=16 * 2**20, max_concurrency=4)
THROTTLED = frozenset({"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"})
BROKEN_TRANSFERS: tuple[type[Exception], ...] = (
    transfer_errors.RetriesExceededError,
    transfer_errors.S3DownloadFailedError,
    getattr(transfer_errors, "S3ValidationError", transfer_errors.RetriesExceededError),  # Since s3transfer 0.14; boto3 1.40.0 has 0.13.
)
"""They share no base: a download that broke off too often, one of an object that was replaced meanwhile, another range than asked for."""
SHA256 = re.compile(r"[0-9a-f]{64}")
LOOSE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class BucketError(Exception):
    """Base of what a bucket answers; its message says what to do."""


class BucketUnavailableError(BucketError):
    """Something that may be better next time."""


class BucketRefusedError(BucketError):
    """Bucket, rights or settings are wrong."""


class ArtifactMissingError(BucketError):
    """The artifact is not in the bucket."""


class ArtifactDamagedError(BucketError):
    """The artifact is in the bucket and is not what was written."""


Objects = dict[str, Mapping[str, Any]]
"""Objects as the server lists them, by the end of their keys."""


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact in the bucket."""

    name: str
    """`<stage>-<digest>`."""
    size_bytes: int
    last_used: float
    """When its newest object was written, in seconds since 1970; `Bucket.touch` writes one anew."""
    is_complete: bool
    """Whether its upload was finished."""


class Bucket:
    """The objects below `s3://bucket/prefix`."""

    def __init__(self, uri: str) -> None:
        """Parse an address; nothing is asked of the server yet.

        Raises:
            BucketRefusedError: The address or a setting of the AWS client is wrong.
        """
        scheme, _, place = uri.partition("://")
        bucket, _, prefix = place.rstrip("/").partition("/")
        if scheme != "s3" or not bucket:
            raise BucketRefusedError(f"{uri!r} is no address of a bucket; write it as s3://bucket/prefix")
        self.uri, self._bucket, self._prefix = uri.rstrip("/"), bucket, f"{prefix}/" if prefix else ""
        with self._translated():
            attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
            config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=10, max_pool_connections=32)
            # boto3 reads AWS_DEFAULT_REGION alone, while pods on AWS are given AWS_REGION.
            self._client: Any = boto3.client("s3", region_name=os.environ.get("AWS_REGION") or None, config=config)

    def artifacts(self) -> tuple[StoredArtifact, ...]:
        """List artifacts, those whose upload was not finished included, and every other folder beside them."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for tail, entry in self._objects(f"{ARTIFACTS}/").items():
            name, _, file = tail.partition("/")
            if file:
                found.setdefault(name, []).append({**entry, "file": file})
        return tuple(_stored(name, entries) for name, entries in sorted(found.items()))

    def download(self, name: str, target: Path, *, flush: Callable[[Path], None] | None = None) -> None:
        """Bring an artifact; `target` is there only when it is whole, and until then `<target>.partial` keeps what has come.

        Args:
            name: `<stage>-<digest>`.
            target: Its folder, which must not be there; its parent must.
            flush: Given the whole folder before it gets its name; writes it to the disk where it is to outlive a crash of the machine.

        Raises:
            ArtifactMissingError: It is not in the bucket.
            ArtifactDamagedError: A file lacks, is changed, or would lie outside `target`.
            BucketUnavailableError: The network, or the disk is too small.
            BucketRefusedError: The bucket refuses.
        """
        marker = self._read(_key(name, CHECKSUMS))
        sums = self._safe_sums(name, marker)
        partial = target.with_name(f"{target.name}.partial")
        partial.mkdir(exist_ok=True)
        (partial / CHECKSUMS).write_bytes(marker)
        for path in files_below(partial):
            if path.relative_to(partial).as_posix() not in {*sums, CHECKSUMS}:
                path.unlink()  # Of an earlier version of the artifact.
        missing = {path: entry for path, entry in sums.items() if not _is_whole(partial / path, entry)}
        self._require_space(partial, sum(entry.size for entry in missing.values()))
        _in_parallel(lambda path: self._bring(name, partial / path, path, missing[path]), missing)
        if flush is not None:
            flush(partial)
        partial.rename(target)

    def read(self, name: str, path: str) -> bytes:
        """Return one small file of an artifact.

        Raises:
            ArtifactMissingError: The artifact or this file of it is not there.
        """
        sums = self._sums(name)
        if path not in sums:
            raise ArtifactMissingError(f"{self.uri}/{_key(name, path)} is not there")
        return self._read(_key(name, sums[path].sha256))

    def upload(self, name: str, folder: Path, *, full: bool = False) -> bool:
        """Keep an artifact; what an earlier, killed upload has brought is used.

        Args:
            name: `<stage>-<digest>`.
            folder: A complete artifact with its `checksums.json`.
            full: Read and hash what is in the bucket instead of comparing sizes; what is damaged there is written anew.

        Returns:
            False where it was in the bucket already, all of it, or another upload was complete first: that one stays.
        """
        there = self._sound_objects(name) if full else self._objects(_key(name))
        if self._is_complete(name, there):
            return False
        missing = {entry.sha256: folder / path for path, entry in read_checksums(folder).items() if not _has(there, entry)}
        _in_parallel(lambda digest: self._write(_key(name, digest), missing[digest]), missing)
        return self._finish(name, folder / CHECKSUMS, there)

    def holds(self, name: str, folder: Path) -> bool:
        """Tell whether an artifact in the bucket was written with the very files of `folder`."""
        try:
            return self._sums(name) == read_checksums(folder)
        except (ArtifactDamagedError, ArtifactMissingError):
            return False

    def touch(self, name: str, folder: Path) -> None:
        """Note the use of a complete artifact, of which `folder` is a copy."""
        self._write(_key(name, CHECKSUMS), folder / CHECKSUMS)

    def delete(self, name: str) -> bool:
        """Delete an artifact, its `checksums.json` first, so that a killed deletion leaves nothing that counts; tell if it was there."""
        if not NAME.fullmatch(name):
            raise ValueError(f"not the name of an artifact: {name!r}")
        there = self._objects(_key(name))
        if CHECKSUMS in there:
            self._delete(_key(name, CHECKSUMS))
        _in_parallel(lambda tail: self._delete(_key(name, tail)), [tail for tail in there if tail != CHECKSUMS])
        return bool(there)

    def download_loose(self, folder_name: str, folder: Path) -> None:
        """Bring the files of one folder of the bucket that `folder` lacks."""
        names = [name for name in self._objects(f"{folder_name}/") if LOOSE_FILE.fullmatch(name) and not (folder / name).exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            partial = folder / f".{name}.{os.getpid()}.partial"
            partial.write_bytes(self._read(f"{folder_name}/{name}"))
            partial.replace(folder / name)

    def upload_loose(self, folder_name: str, file: Path) -> None:
        """Keep one file; the last writer wins."""
        self._write(f"{folder_name}/{file.name}", file)

    def _bring(self, name: str, target: Path, path: str, expected: FileSum) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(DAMAGED_ATTEMPTS):
            try:
                with target.open("wb") as stream, self._translated():
                    key = self._prefix + _key(name, expected.sha256)
                    self._client.download_fileobj(self._bucket, key, stream, Config=TRANSFER)
            except ArtifactMissingError as error:
                raise self._damaged(name, f"{path} is missing") from error
            if _is_whole(target, expected):
                return
        raise self._damaged(name, f"{path} came {DAMAGED_ATTEMPTS} times with another size or SHA-256 than it was written with")

    def _sums(self, name: str) -> dict[str, FileSum]:
        return self._safe_sums(name, self._read(_key(name, CHECKSUMS)))

    def _safe_sums(self, name: str, marker: bytes) -> dict[str, FileSum]:
        """Read an artifact's checksums, of which no path may lead out of its folder."""
        try:
            sums = parse_checksums(marker)
        except ValueError as error:
            raise self._damaged(name, str(error)) from error
        folders = {parent.as_posix() for path in sums for parent in PurePosixPath(path).parents}
        for path, entry in sums.items():
            if not _is_inside(path) or path in folders or not SHA256.fullmatch(entry.sha256) or entry.size < 0:
                raise self._damaged(name, f"its {CHECKSUMS} has an entry that no builder writes: {path!r}")
        return sums

    def _is_complete(self, name: str, there: Objects) -> bool:
        try:
            return CHECKSUMS in there and all(_has(there, entry) for entry in self._sums(name).values())
        except (ArtifactDamagedError, ArtifactMissingError):
            return False

    def _sound_objects(self, name: str) -> Objects:
        """List an artifact's objects without those whose bytes are not what their names say; all are read for it."""
        there = self._objects(_key(name))
        damaged: set[str] = set()

        def check(digest: str) -> None:
            if self._digest(_key(name, digest)) != digest:
                damaged.add(digest)

        _in_parallel(check, [tail for tail in there if tail != CHECKSUMS])
        return {tail: entry for tail, entry in there.items() if tail not in damaged}

    def _digest(self, key: str) -> str | None:
        """Return the SHA-256, in hex, of an object's bytes; None where it is gone."""
        stream = _Sha256File()
        try:
            with self._translated():
                self._client.download_fileobj(self._bucket, self._prefix + key, stream, Config=TRANSFER)
        except ArtifactMissingError:
            return None
        return stream.hexdigest()

    def _finish(self, name: str, marker: Path, before: Objects) -> bool:
        """Write `checksums.json`, and tell so, unless another upload is complete by now; `before` was listed when none was."""
        now = self._objects(_key(name))
        if _etag(now) != _etag(before) and self._is_complete(name, now):
            return False
        if CHECKSUMS not in now:
            if self._create(_key(name, CHECKSUMS), marker):
                return True
            if self._is_complete(name, self._objects(_key(name))):
                return False
        self._write(_key(name, CHECKSUMS), marker)
        return True

    def _create(self, key: str, source: Path) -> bool:
        """Write a small object where there is none; False where there is one, as far as the server knows conditional writes."""
        place = {"Bucket": self._bucket, "Key": self._prefix + key, "Body": source.read_bytes()}
        with self._translated():
            try:
                self._client.put_object(**place, IfNoneMatch="*")
            except ClientError as error:
                status = _status(error)
                if status == 501:
                    self._client.put_object(**place)
                elif status in (409, 412):
                    return False
                else:
                    raise
        return True

    def _damaged(self, name: str, problem: str) -> ArtifactDamagedError:
        return ArtifactDamagedError(f"{name} in {self.uri} is damaged: {problem}")

    def _require_space(self, place: Path, needed_bytes: int) -> None:
        missing = needed_bytes + RESERVE_BYTES - shutil.disk_usage(place).free
        if needed_bytes and missing > 0:
            raise BucketUnavailableError(
                f"{place} lacks {missing / 2**20:.0f} MiB for the {needed_bytes / 2**20:.0f} MiB of {place.stem} in {self.uri}; give the "
                "node more disk, or free some"
            )

    def _objects(self, below: str) -> Objects:
        """List objects by what follows `below` in their keys."""
        prefix = self._prefix + below
        found: Objects = {}
        with self._translated():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                found.update({entry["Key"].removeprefix(prefix): entry for entry in page.get("Contents", [])})
        return found

    def _read(self, key: str) -> bytes:
        with self._translated():
            return bytes(self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read())

    def _write(self, key: str, source: Path) -> None:
        with source.open("rb") as stream, self._translated():
            self._client.upload_fileobj(stream, self._bucket, self._prefix + key, Config=TRANSFER)

    def _delete(self, key: str) -> None:
        with self._translated():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise BucketRefusedError(
                f"{self.uri} needs credentials: name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in engineStore.secretName, "
                "or give the pods a role"
            ) from error
        except ClientError as error:
            raise self._answered(error) from error
        except (ParamValidationError, InvalidRegionError, ProfileNotFound, ValueError) as error:
            raise BucketRefusedError(f"{self.uri}: {error}; check engineStore.uri and the AWS_ variables of the pod") from error
        except SSLError as error:
            if "certificate" not in str(error).lower():
                raise BucketUnavailableError(f"{self.uri} cannot be reached: {error}") from error
            raise BucketRefusedError(f"{self.uri}: {error}; name the server's certificate authority in caConfigMap") from error
        except (BotoCoreError, *BROKEN_TRANSFERS) as error:
            raise BucketUnavailableError(f"{self.uri} cannot be reached: {error}; check the network and AWS_ENDPOINT_URL") from error

    def _answered(self, error: ClientError) -> BucketError:
        status = _status(error)
        code = str(error.response.get("Error", {}).get("Code", ""))
        if status >= 500 or status == 429 or code in THROTTLED:
            return BucketUnavailableError(f"{self.uri} does not answer now: {error}")
        if code == "NoSuchBucket":
            return BucketRefusedError(f"{self.uri}: there is no bucket {self._bucket}; make it, or correct engineStore.uri")
        if status == 404:
            return ArtifactMissingError(f"{self.uri} lacks an object: {error}")
        if status in (401, 403):
            return BucketRefusedError(
                f"{self.uri}: access is refused ({error}); the credentials of engineStore.secretName, or the pod's role, must be allowed "
                "to list the bucket and to get objects, and builders to put and delete them"
            )
        return BucketRefusedError(f"{self.uri}: {error}; check engineStore.uri, AWS_REGION and AWS_ENDPOINT_URL")


class _Sha256File:
    """A file that keeps nothing of what is written to it but the SHA-256."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        return len(data)

    def hexdigest(self) -> str:
        return self._sum.hexdigest()


def _in_parallel(action: Callable[[str], None], items: Iterable[str]) -> None:
    """Do something for each item; the first error is raised after what has begun, and what has not begun is left."""
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _stored(name: str, entries: list[Mapping[str, Any]]) -> StoredArtifact:
    newest = max(entry["LastModified"].timestamp() for entry in entries)
    is_complete = any(entry["file"] == CHECKSUMS for entry in entries)
    return StoredArtifact(name, sum(int(entry["Size"]) for entry in entries), newest, is_complete)


def _key(name: str, file: str = "") -> str:
    return f"{ARTIFACTS}/{name}/{file}"


def _has(there: Objects, entry: FileSum) -> bool:
    return entry.sha256 in there and int(there[entry.sha256]["Size"]) == entry.size


def _etag(there: Objects) -> str | None:
    """Of the `checksums.json` that was listed."""
    return there[CHECKSUMS].get("ETag") if CHECKSUMS in there else None


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 503))


def _is_inside(path: str) -> bool:
    """Tell whether a relative path stays below the folder it is meant for, and is written in its shortest form."""
    pure = PurePosixPath(path)
    return (
        path == pure.as_posix()
        and not pure.is_absolute()
        and path not in ("", ".", CHECKSUMS)
        and not {"..", "."} & set(pure.parts)
        and not set(path) & {"\\", "\0"}
    )


def _is_whole(path: Path, expected: FileSum) -> bool:
    return path.is_file() and path.stat().st_size == expected.size and digest_of_file(path) == expected.sha256
