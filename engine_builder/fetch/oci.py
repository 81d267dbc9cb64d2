"""Checkpoints in an OCI registry, as `oras push` writes them: one layer a file, named by its title annotation."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from oras.container import Container
from oras.provider import Registry
from requests import RequestException

from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.fetch.http import check_status, network_errors, new_session, open_at, refusal, with_timeouts
from engine_builder.fetch.source import OnBytes, RemoteFile, first_of
from engine_builder.fetch.transfer import append_chunks, retried

TITLE = "org.opencontainers.image.title"
LICENCES = "org.opencontainers.image.licenses"
UNPACK = "io.deis.oras.content.unpack"
MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class OciSource:
    """One artifact.

    Source: OCI Distribution Specification 1.1; OCI Image Specification 1.1, "Annotations".
    """

    def __init__(self, uri: str, revision: str | None, credentials: Mapping[str, str]) -> None:
        self._uri, self._credentials = uri, credentials
        self._container = _container(uri, revision)
        host = str(self._container.registry).rpartition(":")[0] or str(self._container.registry)
        self._insecure = host in ("localhost", "127.0.0.1", "[::1]")  # As docker and oras do.

    def revision(self) -> str:
        """Return the manifest's digest; a pinned one needs no network."""
        return str(self._container.digest or f"sha256:{sha256(self._manifest_bytes).hexdigest()}")

    def files(self) -> tuple[RemoteFile, ...]:
        """List the titled layers."""
        return tuple(RemoteFile(title, int(layer["size"]), sha256=_hex_of(layer["digest"])) for title, layer in self._layers.items())

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the files: the manifest says all."""
        return tuple(files)

    def read(self, path: str) -> bytes:
        """Return a small layer."""
        return retried(lambda: self._get(f"blobs/{self._layers[path]['digest']}"))

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Download a blob with a range request where something is there."""
        url = self._url(f"blobs/{self._layers[file.path]['digest']}")

        def get(headers: dict[str, str]) -> Any:
            return self._send(url, headers, stream=True)

        append_chunks(part, lambda offset: open_at(get, url, offset), on_bytes)

    def licence(self) -> str:
        """Return the licences annotation."""
        return str(self._manifest.get("annotations", {}).get(LICENCES, ""))

    @cached_property
    def _manifest_bytes(self) -> bytes:
        name = self._container.digest or self._container.tag
        text = retried(lambda: self._get(f"manifests/{name}", MANIFEST_TYPES))
        if self._container.digest and sha256(text).hexdigest() != _hex_of(self._container.digest):
            raise InvalidModelError(f"{self._uri}: the registry's manifest is not {self._container.digest}; the registry is damaged")
        return text

    @cached_property
    def _manifest(self) -> Mapping[str, Any]:
        manifest = json.loads(self._manifest_bytes)
        if not isinstance(manifest.get("layers"), list):
            raise InvalidModelError(f"{self._uri} is an index of several images, not an artifact; name one of its manifests by digest")
        return dict(manifest)

    @cached_property
    def _layers(self) -> dict[str, Mapping[str, Any]]:
        layers = [(layer.get("annotations", {}), layer) for layer in self._manifest["layers"]]
        if packed := [notes.get(TITLE, "") for notes, _ in layers if notes.get(UNPACK) == "true"]:
            raise InvalidModelError(
                f"{self._uri}: {packed[0]} was pushed as a packed folder; push its files: `oras push … $(find . -type f)`"
            )
        return {notes[TITLE].removeprefix("./"): layer for notes, layer in layers if TITLE in notes}

    def _get(self, path: str, accept: str = "*/*") -> bytes:
        with network_errors(self._uri):
            response = self._send(self._url(path), {"Accept": accept}, stream=False)
        check_status(response, self._uri)
        return bytes(response.content)

    @cached_property
    def _registry(self) -> Any:
        """The client; oras must be told ahead whether the registry wants a password or gives tokens, which `GET /v2/` says."""
        answer = retried(self._ping)
        basic = answer.status_code == 401 and answer.headers.get("WWW-Authenticate", "").lower().startswith("basic")
        registry = Registry(insecure=self._insecure, auth_backend="basic" if basic else "token")
        with_timeouts(registry.session)
        user, password = _login(self._credentials, str(self._container.registry))
        if user is None and basic:
            raise refusal(401, self._uri)
        if user is not None:
            registry.auth.set_basic_auth(user, password or "")
        return registry

    def _ping(self) -> Any:
        with network_errors(self._uri):
            return new_session().get(f"{self._root}/v2/")

    def _send(self, url: str, headers: dict[str, str], *, stream: bool) -> Any:
        # Below oras' own decorator, which sleeps and tries again also where access is refused (oras 0.2.43).
        send = Registry.do_request.__wrapped__
        try:
            return send(self._registry, url, "GET", headers=headers, stream=stream)
        except ValueError as error:  # A 401 that names no way to log in.
            if isinstance(error, RequestException):
                raise
            raise refusal(401, self._uri) from error

    @property
    def _root(self) -> str:
        return f"{'http' if self._insecure else 'https'}://{self._container.registry}"

    def _url(self, path: str) -> str:
        return f"{self._root}/v2/{self._container.api_prefix}/{path}"


def _container(uri: str, revision: str | None) -> Container:
    name = uri.removeprefix("oci://")
    try:
        container = Container(name)
    except ValueError as error:
        raise InvalidJobError(f"{uri} is not oci://registry/name:tag: {error}") from error
    if revision is not None and revision.startswith("sha256:"):
        container.digest = revision
    elif revision is not None:
        container.tag, container.digest = revision, None
    return container


def _hex_of(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256":
        raise InvalidModelError(f"{digest} is not a SHA-256 digest, the only kind that is verified here")
    return value


def _login(credentials: Mapping[str, str], registry: str) -> tuple[str | None, str | None]:
    """Return user and password from `username` and `password`, or from a Secret of type kubernetes.io/dockerconfigjson."""
    if (config := credentials.get(".dockerconfigjson")) is None:
        return first_of(credentials, "username"), first_of(credentials, "password", "token")
    try:
        entries = json.loads(config).get("auths", {})
        entry: Mapping[str, str] = next(
            (entry for host, entry in entries.items() if registry in (host, host.removeprefix("https://").rstrip("/"))), {}
        )
        if "auth" in entry:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return user, password
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise InvalidJobError(f"the Secret's .dockerconfigjson cannot be read: {error}") from error
    return entry.get("username"), entry.get("password")
