"""Requests to a real API server over one pool of connections.

Plain HTTP, for objects here are the JSON that the server speaks; the client library brings credentials and their renewal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from diffusion_operator.cluster.client import FIELD_MANAGER, Listing, Served
from diffusion_operator.cluster.connection import Connection
from diffusion_operator.cluster.errors import ClusterError, MissingError, OutdatedError, RefusedError, UnavailableError, error_of
from diffusion_operator.cluster.kinds import CORE_EVENT, HELD, NODE, POD, Kind, kind_of
from diffusion_operator.manifests.base import Manifest, Ref, ref_of

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
PAGE = 500
"""Objects of one page of a list, so that neither side holds a whole cluster's at once."""
CUSTOM_METRICS_GROUP = "custom.metrics.k8s.io"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MESSAGE_LIMIT = 2000

RequestObserver = Callable[[str, str], None]
"""Is told the HTTP status, or `<error>`, and the method of each request."""


class ApiClient:
    """A `ClusterClient` on a connection. Use as a context manager; belongs to one event loop."""

    def __init__(
        self,
        connection: Connection,
        may_write: Callable[[], bool],
        observer: RequestObserver = lambda code, method: None,
    ) -> None:
        """Args: `may_write` is asked at the moment in which a request that changes something is sent; without leave: `UnavailableError`."""
        self._connection, self._observer, self._may_write = connection, observer, may_write
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool."""
        connector = aiohttp.TCPConnector(ssl=self._connection.ssl_context(), limit=64)
        self._session = aiohttp.ClientSession(connector=connector, timeout=REQUEST_TIMEOUT)
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> Listing:
        """As `ClusterClient.list`."""
        return await self._listing(kind, namespace, {"labelSelector": selector or kind.selector}, {})

    async def get(self, ref: Ref) -> Manifest | None:
        """As `ClusterClient.get`."""
        try:
            return await self._json("GET", _path(ref))
        except MissingError:
            return None

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        """As `ClusterClient.apply`."""
        return await self._apply(_path(ref_of(manifest)), manifest, force=force)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """As `ClusterClient.apply_status`."""
        return await self._apply(_path(ref_of(manifest), "status"), manifest, force=True)

    async def delete(self, ref: Ref, uid: str) -> Manifest | None:
        """As `ClusterClient.delete`."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            answer = await self._json("DELETE", _path(ref), options)
        except (MissingError, OutdatedError):
            return None  # It is gone, or its uid is another's.
        # Of what is gone some kinds answer with a Status, some with the object as it was.
        metadata = answer.get("metadata") or {}
        return answer if metadata.get("finalizers") and metadata.get("deletionTimestamp") else None

    async def create(self, manifest: Manifest) -> Manifest:
        """As `ClusterClient.create`."""
        ref = ref_of(manifest)
        return await self._json("POST", kind_of(ref).path(ref.namespace), manifest, query={"fieldManager": FIELD_MANAGER})

    async def replace(self, manifest: Manifest) -> Manifest:
        """As `ClusterClient.replace`."""
        return await self._json("PUT", _path(ref_of(manifest)), manifest, query={"fieldManager": FIELD_MANAGER})

    async def merge(self, ref: Ref, patch: Mapping[str, object]) -> Manifest:
        """As `ClusterClient.merge`."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._json("PATCH", _path(ref), patch, query=query, content="application/merge-patch+json")

    async def log_tail(self, pod: Ref, container: str, lines: int, limit_bytes: int) -> str:
        """As `ClusterClient.log_tail`."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(limit_bytes)}
        return (await self._request("GET", POD.path(pod.namespace, pod.name, "log"), query=query)).decode(errors="replace")

    async def events_about(self, ref: Ref, uid: str) -> Sequence[Manifest]:
        """As `ClusterClient.events_about`."""
        try:
            return (await self._listing(CORE_EVENT, ref.namespace, {"fieldSelector": f"involvedObject.uid={uid}"}, {})).items
        except RefusedError:
            return ()

    async def node_labels(self) -> tuple[Mapping[str, str], ...] | None:
        """As `ClusterClient.node_labels`."""
        try:
            listing = await self._listing(NODE, None, {}, {"Accept": METADATA_ONLY})
        except RefusedError:
            return None
        return tuple(item["metadata"].get("labels") or {} for item in listing.items)

    async def served(self) -> Served:
        """As `ClusterClient.served`."""
        groups = {group["name"] for group in (await self._json("GET", "/apis")).get("groups", ())}
        optional = [kind for kind in HELD if kind.optional and kind.group in groups]
        found = {kind for kind in optional if await self._serves(kind)}
        return Served(frozenset(found), custom_metrics=CUSTOM_METRICS_GROUP in groups)

    async def _serves(self, kind: Kind) -> bool:
        try:
            resources = (await self._json("GET", f"/apis/{kind.api_version}")).get("resources", ())
        except MissingError:
            return False
        return any(each.get("name") == kind.plural for each in resources)

    async def _listing(self, kind: Kind, namespace: str | None, selectors: Mapping[str, str], headers: Mapping[str, str]) -> Listing:
        query = {"limit": str(PAGE), **{name: text for name, text in selectors.items() if text}}
        items: list[Manifest] = []
        while True:
            page = await self._json("GET", kind.path(namespace), query=query, headers=headers)
            items += page.get("items") or ()
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                return Listing(items, str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    async def _apply(self, path: str, manifest: Manifest, *, force: bool) -> Manifest:
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        return await self._json("PATCH", path, manifest, query=query, content="application/apply-patch+yaml")

    async def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        answer = await self._request(method, path, body, query=query, content=content, headers=headers)
        try:
            parsed: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise UnavailableError(f"{method} {path}: the answer is no JSON; a proxy may have given it") from None
        return parsed

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        assert self._session is not None, "use the client as a context manager"
        sent = {"Accept": "application/json", "Content-Type": content, **(headers or {}), **await self._connection.headers()}
        data = _Write(json.dumps(body).encode(), content, self._may_write) if body is not None else None
        try:
            async with self._session.request(
                method, self._connection.server + path, params=query, data=data, headers=sent, proxy=self._connection.configuration.proxy
            ) as response:
                answer = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if data is not None and data.held_back and not data.sent:
                raise UnavailableError(f"{method} {path}: not sent, for this replica leads no longer") from None
            self._observer("<error>", method)
            raise UnavailableError(f"{method} {path}: {type(error).__name__}: {error}") from None
        self._observer(str(response.status), method)
        if response.status >= 400:
            raise _failure(response.status, answer, f"{method} {path}")
        return answer


class _Write(aiohttp.BytesPayload):
    """Body of a request that changes something, which is all that have one.

    It asks for leave when a connection is there to take it, and headers go out with it: a token and a connection may take seconds to come.
    """

    def __init__(self, body: bytes, content_type: str, may_write: Callable[[], bool]) -> None:
        super().__init__(body, content_type=content_type)
        self._may_write, self.held_back, self.sent = may_write, False, False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.held_back = not self._may_write()
        if self.held_back:
            raise PermissionError("not sent")
        self.sent = True
        await super().write_with_length(writer, content_length)


def _path(ref: Ref, subresource: str = "") -> str:
    return kind_of(ref).path(ref.namespace, ref.name, subresource)


def _failure(status: int, answer: bytes, request: str) -> ClusterError:
    try:
        said = str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        said = answer.decode(errors="replace").strip() or "no message"
    return error_of(status, f"{said[:MESSAGE_LIMIT]} ({request}: {status})" if status >= 500 else said[:MESSAGE_LIMIT])
