"""An upgrade of chart and operator leaves alone what serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from diffusion_api.crd import all_crds
from images.build import CACHE
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.definitions import fields_of
from tests.e2e.digits import previous
from tests.e2e.digits.installation import (
    CHART,
    CRDS,
    RELEASE,
    SYSTEM,
    VALUES,
    helm,
    install,
    provide_checkpoint,
    provide_images,
    provide_namespace,
    remove_namespace,
    values,
)
from tests.e2e.digits.team import Team, digits

NAMESPACE = "upgraded"
WATCHED = {**VALUES, "watchNamespaces": [NAMESPACE]}
"""One namespace alone, so that the release before lays no hand on what others have."""

pytestmark = pytest.mark.timeout(1200)


def definitions(kubectl: Kubectl) -> set[str]:
    """Every field that the API server knows."""
    return {field for name in CRDS for field in fields_of(kubectl.json("get", "crd", name))}


def release(kubectl: Kubectl) -> dict[str, Any]:
    """What Helm says of the release."""
    (found,) = yaml.safe_load(helm(kubectl, "list", "--namespace", SYSTEM, "--output", "yaml"))
    return found


def leads(kubectl: Kubectl, tag: str) -> bool:
    """Whether operators of that image alone are there, and one of them leads: one of another release might else answer for it."""
    pods = kubectl.json("get", "pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=operator")["items"]
    images = {container["image"].rpartition(":")[2] for pod in pods for container in pod["spec"]["containers"]}
    lease = kubectl.json("get", "lease", RELEASE, "--namespace", SYSTEM)["spec"]
    return images == {tag} and lease.get("holderIdentity") in {pod["metadata"]["name"] for pod in pods}


@pytest.fixture
def served_before(team: Team) -> Iterator[Team]:
    """The digits, built and served by chart and operator of the release before."""
    kubectl = team.kubectl
    provide_images(previous.options(CACHE / "previous"), ("operator",))
    provide_namespace(kubectl, NAMESPACE)
    try:
        provide_checkpoint(kubectl, NAMESPACE)
        install(kubectl, {**WATCHED, "image": {**VALUES["image"], "tag": previous.VERSION}}, chart=previous.CHART)
        older = Team(kubectl, NAMESPACE)
        older.apply(digits())
        older.wait_ready()
        yield older
    finally:
        install(kubectl)
        remove_namespace(kubectl, NAMESPACE)


def test_an_upgrade_from_the_release_before_brings_its_definitions_and_restarts_no_triton_pod(served_before: Team) -> None:
    kubectl = served_before.kubectl
    wanted = {field for crd in all_crds().values() for field in fields_of(crd)}
    assert release(kubectl)["chart"] == f"{RELEASE}-{previous.VERSION}"
    assert wanted - definitions(kubectl), "the release before has every field of this one: nothing is upgraded"
    before, engine = served_before.pod_names(), served_before.get("dd")["status"]["engine"]["name"]
    with served_before.load() as load:
        install(kubectl, WATCHED)
        served_before.wait("the new operator to lead", lambda: leads(kubectl, VALUES["image"]["tag"]), 60)
        served_before.look_again()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]
    assert release(kubectl)["chart"] == f"{RELEASE}-{version}"
    assert definitions(kubectl) == wanted
    assert served_before.get("dd")["status"]["engine"]["name"] == engine
    assert served_before.pod_names() == before
    assert load.failures == []


def test_settings_that_pods_do_not_see_restart_none(served):
    before = served.pod_names()
    changed = {**values(build={"ttlSeconds": 4321}), "operator": {"resyncSeconds": 45}, "podAnnotations": {"changed": "yes"}}
    install(served.kubectl, changed)
    served.look_again()
    install(served.kubectl)
    assert served.pod_names() == before
