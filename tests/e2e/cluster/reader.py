"""Looks at objects over and over, as tests do that wait: each kubectl would take a sixth of a second of a core for it."""

from __future__ import annotations

import json
import warnings
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from tests.e2e.cluster.processes import ClusterError

_OURS, _APPS, _BATCH = "apis/diffusionoperator.io/v1alpha1", "apis/apps/v1", "apis/batch/v1"
_PLACES = {
    "dd": (_OURS, "diffusiondeployments"),
    "de": (_OURS, "diffusionengines"),
    "diffusionengines": (_OURS, "diffusionengines"),
    "jobs": (_BATCH, "jobs"),
    "deployments": (_APPS, "deployments"),
    "deployments.apps": (_APPS, "deployments"),
    "controllerrevisions": (_APPS, "controllerrevisions"),
    "pods": ("api/v1", "pods"),
    "services": ("api/v1", "services"),
    "service": ("api/v1", "services"),
    "configmaps": ("api/v1", "configmaps"),
}
"""Path and plural by the names that tests use."""
_JSON = {"Accept": "application/json"}
TIMEOUT_SECONDS = 10


class Reader:
    """Reads objects of one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        settings: Any = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.retries = urllib3.Retry(
            5, connect=0, read=0
        )  # Where the server asks for patience, as it does at its start, and nowhere else.
        self._api: Any = client.ApiClient(settings)

    @staticmethod
    def knows(kind: str) -> bool:
        """Tell whether it can read a kind; kubectl reads all."""
        return kind in _PLACES

    def get(self, kind: str, namespace: str, name: str = "", selector: str = "") -> Any:
        """Return an object as `kubectl get` prints it with `--output json`, or a list of such where no name is given.

        Raises:
            ClusterError: There is none, or the server does not answer.
        """
        group, plural = _PLACES[kind]
        path = f"/{group}/namespaces/{namespace}/{plural}{f'/{name}' if name else ''}"
        query = [("labelSelector", selector)] if selector else []
        where = f"get {kind} {name} --namespace {namespace}"
        request = self._api.param_serialize("GET", path, query_params=query, header_params=_JSON, auth_settings=["BearerToken"])
        try:
            with warnings.catch_warnings():  # Where the kubeconfig says so, the server's certificate is not looked at.
                warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
                answer = self._api.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            said = answer.read().decode()
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise ClusterError(f"{where}: {error}") from None
        if answer.status != HTTPStatus.OK:  # What is said then is a Status, or words.
            raise ClusterError(f"{where}: {answer.status} {said.strip()}")
        found = json.loads(said)
        for each in found.get("items", [found]):
            each["metadata"].pop("managedFields", None)
        for each in found.get("items", []):  # As kubectl says it of each.
            each |= {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return found
