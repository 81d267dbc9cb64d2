"""How to reach the API server: one configuration for the operator's own requests and for Kopf's watching."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import kopf
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException

from diffusion_operator.cluster.errors import UnavailableError

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class NoConnectionError(ValueError):
    """Whoever starts the operator must say how to reach the cluster."""


@dataclass(frozen=True)
class Connection:
    """Credentials and address; tokens are read anew when they expire."""

    configuration: Configuration

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self.configuration.host).rstrip("/")

    async def headers(self) -> dict[str, str]:
        """Header of a request, with a token that is valid now.

        Raises:
            UnavailableError: The token cannot be read now, or whatever gives tokens gives none.
        """
        try:
            token = await self.configuration.get_api_key_with_prefix("BearerToken")
        except (OSError, ValueError, ConfigException) as error:
            raise UnavailableError(f"no token to reach the API server: {type(error).__name__}: {error}") from None
        return {"Authorization": token} if token else {}

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Trust in the server's certificate, and the client's own where there is one."""
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=self.configuration.ssl_ca_cert, cadata=self.configuration.ca_cert_data)
        if self.configuration.cert_file:
            context.load_cert_chain(self.configuration.cert_file, self.configuration.key_file)
        if not self.configuration.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def for_kopf(self) -> kopf.ConnectionInfo:
        """Return the same for Kopf, which asks again when a token is refused."""
        scheme, _, token = (await self.headers()).get("Authorization", "").partition(" ")
        return kopf.ConnectionInfo(
            server=self.server,
            ca_path=self.configuration.ssl_ca_cert or None,
            ca_data=self.configuration.ca_cert_data or None,
            insecure=not self.configuration.verify_ssl,
            scheme=scheme or None,
            token=token or None,
            certificate_path=self.configuration.cert_file or None,
            private_key_path=self.configuration.key_file or None,
            proxy_url=self.configuration.proxy or None,
        )


async def connect(kubeconfig: str | None) -> Connection:
    """Read the credentials: of a kubeconfig where one is named, else of the pod's service account, else of the usual kubeconfig.

    Raises:
        NoConnectionError: There are none.
    """
    configuration = Configuration()
    untyped = cast(Any, config)  # The client's configuration has no types.
    try:
        if kubeconfig is not None:
            await untyped.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            await _usual(untyped, configuration)
    except (ConfigException, OSError) as error:
        raise NoConnectionError(f"no way to reach a cluster: {error}; name a kubeconfig with --kubeconfig") from None
    return Connection(configuration)


def own_namespace() -> str | None:
    """Namespace of the pod that this runs in; None outside a cluster."""
    return NAMESPACE_FILE.read_text(encoding="utf-8").strip() if NAMESPACE_FILE.exists() else None


async def _usual(untyped: Any, configuration: Configuration) -> None:
    try:
        untyped.load_incluster_config(client_configuration=configuration)
    except ConfigException:
        await untyped.load_kube_config(client_configuration=configuration)
