"""Checkpoints on a web server: a folder with `model_index.json`, or one file (`.tar`, `.tar.gz`, `.safetensors`, `.pth`)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.fetch.archives import ARCHIVE_SUFFIXES
from engine_builder.fetch.http import IDENTITY, check_status, network_errors, new_session, open_at, redacted
from engine_builder.fetch.selection import MODEL_INDEX, components_of, parse_model_index
from engine_builder.fetch.source import OnBytes, RemoteFile, first_of
from engine_builder.fetch.transfer import append_chunks, retried
from engine_builder.store import CHECKSUMS

SINGLE_FILE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".safetensors", ".pth", ".pt")
ROOT_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "README.md", "calibration_prompts.txt")
COMPONENT_FILES = (
    "config.json",
    "generation_config.json",
    "scheduler_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
)
"""What diffusers and transformers may look for in a component's folder. A server without a list of files is asked for each."""
PARALLEL_REQUESTS = 8
HASHED_BYTES = 2**24
"""Up to this size a file that its server dates by nothing is read to be told from its next version; it is 16 MiB."""
PIN_PREFIX = "sha256:"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Nothing leaves the machine on its way there."""


class WebSource:
    """A web server's folder or file.

    HTTP has no listing, so the files come from `checksums.json` at the folder's root where there is one (the format of
    `engine_builder.store.checksums`, which also gives SHA-256), else from asking for every name that diffusers would.
    """

    def __init__(self, uri: str, credentials: Mapping[str, str], revision: str | None = None) -> None:
        self._uri = uri.rstrip("/")
        self._pin = _pinned_sha256(uri, revision)
        _require_private(uri, credentials)
        self._session = new_session()
        if token := first_of(credentials, "token"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        elif user := first_of(credentials, "username"):
            self._session.auth = (user, first_of(credentials, "password") or "")

    def revision(self) -> str | None:
        """Return a pinned SHA-256; else nothing: the digest of names, sizes and checksums, ETags or dates is the revision."""
        return f"{PIN_PREFIX}{self._pin}" if self._pin else None

    def files(self) -> tuple[RemoteFile, ...]:
        """List the files."""
        path = urlsplit(self._uri).path
        if path.endswith(SINGLE_FILE_SUFFIXES):
            found = self._head("")
            if found is None:
                raise InvalidJobError(f"{redacted(self._uri)} does not exist (404); check model.uri")
            return (replace(found, path=path.rpartition("/")[2], sha256=self._pin),)
        if self._head(CHECKSUMS) is not None:
            return self._listed(self.read(CHECKSUMS))
        if self._head(MODEL_INDEX) is None:
            raise InvalidJobError(
                f"{redacted(self._uri)} has neither {MODEL_INDEX} nor {CHECKSUMS} (404); name a diffusers folder or a file "
                f"({', '.join(SINGLE_FILE_SUFFIXES)})"
            )
        return self._asked(components_of(parse_model_index(self.read(MODEL_INDEX))))

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the files; those that the server gives neither an ETag nor a date for with their SHA-256, for which they are read.

        Raises:
            InvalidJobError: Such a file is too large to be read each time that its revision is asked for.
        """
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return tuple(pool.map(self._dated, files))

    def read(self, path: str) -> bytes:
        """Return a small file."""
        return retried(lambda: self._read(path))

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Download with a range request where something is there."""
        url = self._url_of(file)
        append_chunks(
            part,
            lambda offset: open_at(lambda headers: self._session.get(url, headers=headers, stream=True), url, offset, file.tag),
            on_bytes,
        )

    def licence(self) -> str:
        """Return nothing: the files say it."""
        return ""

    def _read(self, path: str) -> bytes:
        url = self._url(path)
        with network_errors(url):
            response = self._session.get(url)
        check_status(response, url)
        return bytes(response.content)

    def _listed(self, manifest: bytes) -> tuple[RemoteFile, ...]:
        try:
            entries = json.loads(manifest)["files"]
            return tuple(RemoteFile(path, int(entry["size"]), sha256=str(entry["sha256"])) for path, entry in entries.items())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidModelError(f"{redacted(self._url(CHECKSUMS))} is not in the format of an engine store: {error}") from error

    def _asked(self, components: Sequence[str]) -> tuple[RemoteFile, ...]:
        names = [MODEL_INDEX, *ROOT_FILES, *(f"{component}/{name}" for component in components for name in COMPONENT_FILES)]
        found = self._all_heads(names)
        shards = {shard for file in found if file.path.endswith(".index.json") for shard in self._shards(file.path)}
        return (*found, *self._all_heads(sorted(shards - {file.path for file in found})))

    def _shards(self, index: str) -> Iterator[str]:
        folder = index.rpartition("/")[0]
        try:
            names = set(json.loads(self.read(index))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidModelError(f"{index} is not an index of safetensors: {error}") from error
        return (f"{folder}/{name}" for name in names)

    def _all_heads(self, names: Iterable[str]) -> tuple[RemoteFile, ...]:
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return tuple(file for file in pool.map(self._head, names) if file is not None)

    def _head(self, path: str) -> RemoteFile | None:
        return retried(lambda: self._head_once(path))

    def _head_once(self, path: str) -> RemoteFile | None:
        url = self._url(path)
        with network_errors(url):
            response = self._session.head(url, headers=IDENTITY, allow_redirects=True)
        if response.status_code in (404, 410):
            return None
        check_status(response, url)
        length = response.headers.get("Content-Length")
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        return RemoteFile(path, int(length) if length is not None else None, tag=tag)

    def _dated(self, file: RemoteFile) -> RemoteFile:
        if file.sha256 or file.tag:
            return file
        digest = None if (file.size or 0) > HASHED_BYTES else retried(lambda: self._digest(self._url_of(file)))
        if digest is None:
            raise InvalidJobError(_undated(self._url_of(file)))
        return replace(file, sha256=digest)

    def _digest(self, url: str) -> str | None:
        """Return a file's SHA-256, or None where it is larger than `HASHED_BYTES`."""
        digest, size = hashlib.sha256(), 0
        _, chunks = open_at(lambda headers: self._session.get(url, headers=headers, stream=True), url, 0)
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            if size > HASHED_BYTES:
                return None
        return digest.hexdigest()

    def _url_of(self, file: RemoteFile) -> str:
        return self._url("" if urlsplit(self._uri).path.endswith(f"/{file.path}") else file.path)

    def _url(self, path: str) -> str:
        if not path:
            return self._uri
        scheme, place, folder, query, _ = urlsplit(self._uri)
        return urlunsplit((scheme, place, f"{folder}/{quote(path)}", query, ""))


def _require_private(uri: str, credentials: Mapping[str, str]) -> None:
    """Refuse to send credentials for everyone on the way to read.

    Raises:
        InvalidJobError: They would go over plain HTTP to another machine.
    """
    parts = urlsplit(uri)
    has_credentials = bool(first_of(credentials, "token", "username") or parts.username)
    if parts.scheme == "http" and parts.hostname not in LOCAL_HOSTS and has_credentials:
        raise InvalidJobError(f"{redacted(uri)} would carry the credentials unencrypted; use https://, or leave model.secretName out")


def _pinned_sha256(uri: str, revision: str | None) -> str | None:
    """Return the SHA-256 that a job pins one file to.

    Raises:
        InvalidJobError: What follows `sha256:` is no digest, or the URI is no archive, which alone is a checkpoint in one file.
    """
    if revision is None or not revision.startswith(PIN_PREFIX):
        return None
    digest = revision.removeprefix(PIN_PREFIX).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidJobError(f"model.revision {revision} is no SHA-256; give {PIN_PREFIX} and the 64 hex digits that sha256sum prints")
    if not urlsplit(uri).path.endswith(ARCHIVE_SUFFIXES):
        raise InvalidJobError(
            f"model.revision {PIN_PREFIX}… pins one file ({', '.join(ARCHIVE_SUFFIXES)}), and {redacted(uri)} is a folder; leave it out, "
            f"and put a {CHECKSUMS} with each file's SHA-256 into the folder"
        )
    return digest


def _undated(url: str) -> str:
    cure = (
        f"set model.revision to {PIN_PREFIX} and what sha256sum prints for the file"
        if urlsplit(url).path.endswith(ARCHIVE_SUFFIXES)
        else f"list it with its SHA-256 in a {CHECKSUMS} in the folder that the URI names"
    )
    return (
        f"the server gives neither ETag nor Last-Modified for {redacted(url)}, so a changed file would be taken for the old one; "
        f"{cure}, or have the server send an ETag"
    )
