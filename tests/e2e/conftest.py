"""A cluster for the tests in this folder: this machine's own, or the one that `E2E_KUBECONFIG` names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.e2e.cluster.addons import renew_volumes
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.lifecycle import held_up
from tests.e2e.cluster.requirements import advice, missing_requirements


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    kubectl: Kubectl
    is_own: bool
    """Whether it is this machine's: images can be imported, nodes simulated, and pods reached by their addresses."""

    @property
    def kubeconfig(self) -> Path:
        return self.kubectl.kubeconfig


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster that runs; without one, the test is skipped and says what is missing."""
    if kubeconfig := os.environ.get("E2E_KUBECONFIG"):
        yield Cluster(Kubectl(Path(kubeconfig)), is_own=False)
        return
    if missing := missing_requirements(install=True):
        pytest.skip(advice(missing))
    with held_up() as kubectl:
        yield Cluster(kubectl, is_own=True)


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """This machine's cluster, for tests that need more of it than its API."""
    if not cluster.is_own:
        pytest.skip("needs this machine's own cluster: unset E2E_KUBECONFIG")
    return cluster


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """Runs kubectl as a user would: `kubectl("get", "pods")`, `kubectl.json(…)`, `kubectl.apply(manifest)`."""
    return cluster.kubectl


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[client.ApiClient]:
    """A client of the API server, for `kubernetes.client.CoreV1Api(api)` and its like."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        yield api


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, removed with all that it holds."""
    if cluster.is_own:
        renew_volumes(cluster.kubectl)
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl.wait("create", "serviceaccount/default", namespace=name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
