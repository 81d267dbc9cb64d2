"""The operator, installed by Helm from its own images, and a team that serves the digits with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.addons import renew_volumes
from tests.e2e.conftest import Cluster
from tests.e2e.digits.installation import REPOSITORY, installed, provide_checkpoint, provide_images, provide_namespace
from tests.e2e.digits.team import Team, digits

NAMESPACE = "pictures"


@pytest.fixture(scope="package")
def team(own_cluster: Cluster) -> Iterator[Team]:
    """A namespace with a checkpoint, and nothing applied yet."""
    if REPOSITORY.is_relative_to("/tmp"):
        pytest.skip("pods use this checkout's Python environments and have a /tmp of their own: clone it elsewhere than below /tmp")
    kubectl = own_cluster.kubectl
    renew_volumes(kubectl)
    provide_images()
    with installed(kubectl):
        provide_namespace(kubectl, NAMESPACE)
        provide_checkpoint(kubectl, NAMESPACE)
        try:
            yield Team(kubectl, NAMESPACE)
        finally:
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=240s")


@pytest.fixture(scope="package")
def served(team: Team) -> Team:
    """The digits, applied and served."""
    team.apply(digits())
    team.wait_ready()
    return team
