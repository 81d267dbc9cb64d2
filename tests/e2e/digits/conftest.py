"""The operator, installed by Helm from its own images, and a team that serves the digits with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.addons import renew_volumes
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.conftest import Cluster
from tests.e2e.digits.installation import (
    CRDS,
    PLACE,
    REPOSITORY,
    installed,
    provide_checkpoint,
    provide_images,
    provide_namespace,
    remove_namespace,
)
from tests.e2e.digits.team import Team, digits
from tests.e2e.digits.upgrade import Upgrade, serve_and_upgrade

NAMESPACE = "pictures"
TEST_SECONDS = 1800
"""The first test of all also builds the images, and others wait for builds."""
ANYWHERE = {"test_pictures", "test_rollout", "test_uninstall", "test_variants"}
"""Files of tests that need no more of a cluster than a user has of one."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give images and builds their time; on a cluster of the user's, leave out what reads volumes or simulates nodes."""
    left_out = pytest.mark.skip(reason="needs this machine's own cluster: unset E2E_KUBECONFIG")
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        item.add_marker(pytest.mark.timeout(TEST_SECONDS))
        if not PLACE.is_own and item.path.stem not in ANYWHERE:
            item.add_marker(left_out)


@pytest.fixture(scope="package")
def team(cluster: Cluster) -> Iterator[Team]:
    """A namespace with a checkpoint, and nothing applied yet."""
    kubectl = cluster.kubectl
    if problem := _problem(kubectl):
        pytest.skip(problem)
    if PLACE.is_own:
        renew_volumes(kubectl)
        provide_images()
    with installed(kubectl):
        provide_namespace(kubectl, NAMESPACE)
        provide_checkpoint(kubectl, NAMESPACE)
        try:
            yield Team(kubectl, NAMESPACE)
        finally:
            remove_namespace(kubectl, NAMESPACE)


def _problem(kubectl: Kubectl) -> str:
    if PLACE.is_own:
        below_tmp = "pods use this checkout's Python environments and have a /tmp of their own: clone it elsewhere than below /tmp"
        return below_tmp if REPOSITORY.is_relative_to("/tmp") else ""
    if any(kubectl.run("get", "crd", name).returncode == 0 for name in CRDS):
        return "the cluster has diffusion-operator's definitions already, which these tests would delete with every object of theirs"
    return PLACE.lack


@pytest.fixture(scope="package")
def upgraded(team: Team) -> Upgrade:
    """The digits, built and served by the release before, and since then in this one's hands."""
    return serve_and_upgrade(team)


@pytest.fixture(scope="package")
def served(team: Team, request: pytest.FixtureRequest) -> Team:
    """The digits, applied and served; where images can be imported, they have an upgrade behind them."""
    if PLACE.is_own:
        request.getfixturevalue("upgraded")
    else:
        team.apply(digits())
        team.wait_ready()
    return team
