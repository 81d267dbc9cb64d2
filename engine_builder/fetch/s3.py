"""Checkpoints in S3 or what speaks its protocol: `s3://bucket/prefix`, or one object for a student's weights."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError, PartialCredentialsError

from engine_builder.errors import InvalidJobError, TransientError
from engine_builder.fetch.http import refusal
from engine_builder.fetch.source import OnBytes, RemoteFile, first_of
from engine_builder.fetch.transfer import append_chunks, retried

BLOCK_BYTES = 16 * 2**20
PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Source:
    """Objects below a prefix.

    Credentials are the secret's `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, else what the AWS client finds
    (a pod's role, the environment). `AWS_ENDPOINT_URL`, in the secret or the environment, names another server than Amazon's.
    """

    def __init__(self, uri: str, credentials: Mapping[str, str]) -> None:
        self._uri, self._prefix = uri, uri.removeprefix("s3://").rstrip("/")
        self._system = s3fs.S3FileSystem(
            key=first_of(credentials, "AWS_ACCESS_KEY_ID", "accessKeyId"),
            secret=first_of(credentials, "AWS_SECRET_ACCESS_KEY", "secretAccessKey"),
            token=first_of(credentials, "AWS_SESSION_TOKEN", "sessionToken"),
            endpoint_url=first_of(credentials, "AWS_ENDPOINT_URL", "endpoint") or os.environ.get("AWS_ENDPOINT_URL"),
            client_kwargs=_region(credentials),
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def revision(self) -> None:
        """Return nothing: the digest of keys, sizes and ETags is the revision."""

    def files(self) -> tuple[RemoteFile, ...]:
        """List the objects."""
        found: Mapping[str, Any] = self._call(lambda: self._system.find(self._prefix, detail=True))
        files = tuple(_remote_file(self._relative(key), entry) for key, entry in sorted(found.items()) if entry["type"] == "file")
        if not files:
            raise InvalidJobError(f"{self._uri} holds no objects; check model.uri, and that the credentials may list the bucket")
        return files

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the files with SHA-256 where S3 stored one; an ETag counts as MD5 only where S3 says nothing of encryption.

        Source: Amazon S3 API Reference, "Object", ETag; "Checking object integrity".
        """
        return tuple(self._detailed(file) for file in files)

    def read(self, path: str) -> bytes:
        """Return a small object."""
        return bytes(self._call(lambda: self._system.cat_file(self._key(path))))

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Download in blocks from where `part` ends."""
        with self._translated(), self._system.open(self._key(file.path), "rb", block_size=BLOCK_BYTES, cache_type="none") as stream:
            append_chunks(part, lambda offset: (stream.seek(offset), _blocks(stream)), on_bytes)

    def licence(self) -> str:
        """Return nothing: the files say it."""
        return ""

    def _detailed(self, file: RemoteFile) -> RemoteFile:
        bucket, _, key = self._key(file.path).partition("/")
        head: Mapping[str, Any] = self._call(lambda: self._system.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED"))
        whole = head.get("ChecksumSHA256") if head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else None
        encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
        is_md5 = PLAIN_MD5.fullmatch(file.tag) is not None and not encrypted
        sha256 = base64.b64decode(whole).hex() if whole and "-" not in whole else None
        return replace(file, sha256=sha256, md5=file.tag if is_md5 else None)

    def _call(self, request: Callable[[], Any]) -> Any:
        def translated() -> Any:
            with self._translated():
                return request()

        return retried(translated)

    def _relative(self, key: str) -> str:
        return key.rpartition("/")[2] if key == self._prefix else key.removeprefix(f"{self._prefix}/")

    def _key(self, path: str) -> str:
        return self._prefix if self._prefix.endswith(f"/{path}") else f"{self._prefix}/{path}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise InvalidJobError(
                f"{self._uri} needs credentials: name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in model.secretName, or "
                "give the pod a role"
            ) from error
        except PermissionError as error:
            raise InvalidJobError(f"{self._uri}: access is refused ({error}); check the Secret that model.secretName names") from error
        except FileNotFoundError as error:
            raise InvalidJobError(f"{self._uri} does not exist ({error}); check model.uri") from error
        except (ParamValidationError, ValueError) as error:
            raise InvalidJobError(f"{self._uri}: {error}") from error
        except (BotoCoreError, ConnectionError, TimeoutError) as error:
            raise TransientError(f"{self._uri}: {error}") from error
        except (ClientError, OSError) as error:
            answer = error if isinstance(error, ClientError) else error.__cause__
            if not isinstance(answer, ClientError):
                raise  # This machine's disk, not S3.
            raise refusal(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 503), self._uri) from error


def _blocks(stream: Any) -> Iterator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


def _remote_file(path: str, entry: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(path, int(entry["size"]), tag=str(entry.get("ETag", "")).strip('"'))


def _region(credentials: Mapping[str, str]) -> dict[str, str]:
    region = first_of(credentials, "AWS_REGION", "region")
    return {"region_name": region} if region else {}
