"""`python -m diffusion_operator.crds apply | delete`: bring the cluster's CustomResourceDefinitions to this release.

The chart runs it as a hook, for Helm itself never upgrades CRDs. The definitions come from the models, so that an operator's image and
its CRDs are always of one release. It decides nothing else and knows no other object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from diffusion_api.crd import all_crds

FIELD_MANAGER = "diffusion-operator-crds"
APPLY = "application/apply-patch+yaml"  # JSON is YAML.
POLL_SECONDS = 0.5
REQUEST_SECONDS = 30
ADVICE: Mapping[int, str] = {
    HTTPStatus.FORBIDDEN: "; the hook's ClusterRole is missing, or set crds.install=false and apply the definitions beforehand",
    HTTPStatus.UNPROCESSABLE_ENTITY: "; does the cluster run Kubernetes 1.30 or newer?",
}

Crd = Mapping[str, Any]


class CrdError(RuntimeError):
    """A definition was refused or did not become ready; the message says which and what to do."""


class CrdApi(Protocol):
    """The three calls that are needed; errors are `ApiException`."""

    def apply(self, name: str, manifest: Crd) -> None:
        """Apply a definition on the server's side, taking over fields that others own."""

    def read(self, name: str) -> Crd:
        """Return a definition as the cluster has it."""

    def delete(self, name: str) -> None:
        """Delete a definition and with it every object of its kind."""


class KubernetesCrdApi:
    """The calls, by the Kubernetes client."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._api = client.ApiextensionsV1Api(client.ApiClient(configuration))

    def apply(self, name: str, manifest: Crd) -> None:
        """See `CrdApi`."""
        self._api.patch_custom_resource_definition(
            name,
            dict(manifest),
            field_manager=FIELD_MANAGER,
            force=True,
            field_validation="Strict",
            _content_type=APPLY,
            _request_timeout=REQUEST_SECONDS,
        )

    def read(self, name: str) -> Crd:
        """See `CrdApi`."""
        found = self._api.read_custom_resource_definition(name, _request_timeout=REQUEST_SECONDS)
        document: Crd = self._api.api_client.sanitize_for_serialization(found)
        return document

    def delete(self, name: str) -> None:
        """See `CrdApi`."""
        self._api.delete_custom_resource_definition(name, _request_timeout=REQUEST_SECONDS)


def apply_crds(api: CrdApi, *, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """Apply every definition and wait until the API server serves it.

    Args:
        api: The cluster.
        timeout_seconds: For the waiting of all together.
        clock: Seconds, from any start.

    Returns:
        The definitions' names.

    Raises:
        CrdError: One was refused, or is not established in time.
    """
    names = []
    for crd in all_crds().values():
        name = crd["metadata"]["name"]
        try:
            api.apply(name, crd)
        except ApiException as error:
            raise CrdError(f"{name} was refused: {_said(error)}") from None
        names.append(name)
    _wait(names, lambda name: _lack(api, name), "is not established", clock() + timeout_seconds, clock)
    return names


def delete_crds(api: CrdApi, *, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> list[str]:
    """Delete every definition, with every object of its kind, and wait until they are gone; one that is not there is well.

    Raises:
        CrdError: One could not be deleted, or is there still when the time is over.
    """
    names = [crd["metadata"]["name"] for crd in all_crds().values()]
    for name in names:
        try:
            api.delete(name)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise CrdError(f"{name} could not be deleted: {_said(error)}") from None
    _wait(names, lambda name: _remains(api, name), "is there still", clock() + timeout_seconds, clock)
    return names


def _wait(names: Iterable[str], lack: Callable[[str], str], problem: str, until: float, clock: Callable[[], float]) -> None:
    for name in names:
        while said := lack(name):
            if clock() >= until:
                raise CrdError(f"{name} {problem}: {said}; see `kubectl describe crd {name}`")
            time.sleep(POLL_SECONDS)


def _lack(api: CrdApi, name: str) -> str:
    """What a definition lacks to be served; empty: nothing."""
    try:
        crd = api.read(name)
    except ApiException as error:
        return _said(error)
    conditions = {each["type"]: each for each in crd.get("status", {}).get("conditions") or ()}
    # A clash of names would never end by waiting alone, but its message says with whom.
    for wanted in ("NamesAccepted", "Established"):
        if conditions.get(wanted, {}).get("status") != "True":
            return str(conditions.get(wanted, {}).get("message") or f"it has no condition {wanted} yet")
    return ""


def _remains(api: CrdApi, name: str) -> str:
    try:
        crd = api.read(name)
    except ApiException as error:
        return "" if error.status == HTTPStatus.NOT_FOUND else _said(error)
    finalizers = crd["metadata"].get("finalizers") or ()
    return f"its objects are being deleted (finalizers {', '.join(finalizers)})" if finalizers else "it is being deleted"


def _said(error: ApiException) -> str:
    """The API server's own sentence, and what to do about the usual two."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = error.reason or f"HTTP {error.status}"
    return f"{message}{ADVICE.get(error.status or 0, '')}"


def main(arguments: Sequence[str] | None = None, *, api: Callable[[], CrdApi] | None = None) -> int:
    """Run one command; 0 is well, 1 a refusal that the last line explains."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_operator.crds", description=__doc__)
    parser.add_argument("command", choices=("apply", "delete"))
    parser.add_argument("--timeout-seconds", type=float, default=120, help="for waiting until the cluster has followed (default: 120)")
    options = parser.parse_args(arguments)
    act = {"apply": (apply_crds, "established"), "delete": (delete_crds, "deleted")}
    run, done = act[options.command]
    try:
        names = run((api or _connect)(), timeout_seconds=options.timeout_seconds)
    except CrdError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (ConfigException, HTTPError) as error:
        sys.stderr.write(f"the API server cannot be reached: {' '.join(str(error).split())}\n")
        return 1
    for name in names:
        sys.stdout.write(f"{name}: {done}\n")
    return 0


def connection() -> client.Configuration:
    """In a pod, its service account; elsewhere the kubeconfig's current context.

    Raises:
        ConfigException: There is neither.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # kubernetes 37 leaves it untyped.
        # As the operator itself: HTTPS_PROXY leads to what lies outside, and a pod's API server does not.
        configuration.proxy = None
    except ConfigException:
        config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def _connect() -> CrdApi:
    return KubernetesCrdApi(connection())


if __name__ == "__main__":
    raise SystemExit(main())
