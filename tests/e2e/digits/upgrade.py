"""An upgrade of chart and operator from the release before, under load, as Helm, the API server and clients see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from images.build import CACHE
from tests.e2e.cluster.kubectl import Kubectl
from tests.e2e.definitions import fields_of
from tests.e2e.digits import previous
from tests.e2e.digits.installation import CRDS, RELEASE, SYSTEM, VALUES, helm, install, provide_images
from tests.e2e.digits.team import Team, digits


@dataclass(frozen=True)
class Seen:
    """What is there at one moment."""

    chart: str
    fields: frozenset[str]
    """Every field that the API server knows."""
    engine: str
    pods: frozenset[str]


@dataclass(frozen=True)
class Upgrade:
    """Before it, after it, and the requests that failed meanwhile."""

    before: Seen
    after: Seen
    failures: tuple[str, ...]


def serve_and_upgrade(team: Team) -> Upgrade:
    """Have the digits built and served by the release before, then install this one."""
    kubectl = team.kubectl
    watched = {**VALUES, "watchNamespaces": [team.namespace]}  # So that the release before lays no hand on what others have.
    provide_images(previous.options(CACHE / "previous"), ("operator",))
    install(kubectl, {**watched, "image": {**VALUES["image"], "tag": previous.VERSION}}, chart=previous.CHART)
    try:
        team.apply(digits())
        team.wait_ready()
        before = _seen(team)
        with team.load() as load:
            install(kubectl, watched)
            team.wait("the new operator to lead", lambda: _leads(kubectl, VALUES["image"]["tag"]), 60)
            team.look_again()
        return Upgrade(before, _seen(team), tuple(load.failures))
    finally:
        install(kubectl)


def _seen(team: Team) -> Seen:
    kubectl = team.kubectl
    (release,) = yaml.safe_load(helm(kubectl, "list", "--namespace", SYSTEM, "--output", "yaml"))
    fields = frozenset(field for name in CRDS for field in fields_of(kubectl.json("get", "crd", name)))
    engine: str = team.status("dd")["engine"]["name"]
    return Seen(release["chart"], fields, engine, frozenset(team.pod_names()))


def _leads(kubectl: Kubectl, tag: str) -> bool:
    """Whether operators of that image alone are there, and one of them leads: one of another release might else answer for it."""
    selector = "--selector=app.kubernetes.io/component=operator"
    pods: list[dict[str, Any]] = kubectl.json("get", "pods", "--namespace", SYSTEM, selector)["items"]
    images = {container["image"].rpartition(":")[2] for pod in pods for container in pod["spec"]["containers"]}
    lease = kubectl.json("get", "lease", RELEASE, "--namespace", SYSTEM)["spec"]
    return images == {tag} and lease.get("holderIdentity") in {pod["metadata"]["name"] for pod in pods}
