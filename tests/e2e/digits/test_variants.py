"""The chart with two replicas, for one namespace alone, and with definitions that go with it. Nothing is built: there is no such GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.cluster.processes import wait_until
from tests.e2e.digits.installation import CRDS, RELEASE, REPOSITORY, SYSTEM, VALUES, helm, install
from tests.e2e.digits.team import Team

EXAMPLE = REPOSITORY / "examples" / "flux2-klein-b200.yaml"
NAME, WATCHED, UNWATCHED = "flux2-klein", "watched", "unwatched"
CHOSEN = {**VALUES, "replicas": 2, "watchNamespaces": [WATCHED], "crds": {"install": True, "keep": False}}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def kubectl(team: Team) -> Iterator[Kubectl]:
    """With the chart installed so, and two namespaces."""
    for namespace in (WATCHED, UNWATCHED):
        team.kubectl("create", "namespace", namespace)
    try:
        install(team.kubectl, CHOSEN)
        yield team.kubectl
    finally:
        helm(team.kubectl, "uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait", "--timeout", "180s")
        team.kubectl("delete", "namespace", WATCHED, UNWATCHED, "--timeout=240s")


def test_two_replicas_serve_the_named_namespace_alone_and_uninstalling_takes_the_definitions_along(kubectl: Kubectl) -> None:
    for namespace in (UNWATCHED, WATCHED):
        kubectl("apply", "--filename", EXAMPLE, "--namespace", namespace)
    wait_until("a look at it", lambda: bool(Team(kubectl, WATCHED).condition("dd", NAME)), 60)
    assert Team(kubectl, UNWATCHED).condition("dd", NAME) == {}

    pods = kubectl.json("get", "pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=operator")["items"]
    running = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    assert len(running) == 2
    assert kubectl.json("get", "lease", RELEASE, "--namespace", SYSTEM)["spec"]["holderIdentity"] in running
    roles = kubectl("get", "clusterroles", "--output=name").split()
    assert [role for role in roles if RELEASE in role] == [f"clusterrole.rbac.authorization.k8s.io/{RELEASE}-{SYSTEM}-nodes"]

    helm(kubectl, "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "180s")
    assert not set(CRDS) & set(kubectl("get", "crd", "--output=jsonpath={.items[*].metadata.name}").split())
    wait_until("what belonged to them to go", lambda: not kubectl("get", "jobs", "--namespace", WATCHED, "--output=name"), 120)
