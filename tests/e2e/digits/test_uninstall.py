"""What is left when a team and its operator go: nothing."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import layout
from tests.e2e.cluster.processes import wait_until
from tests.e2e.digits.installation import CRDS, RELEASE, SYSTEM, helm
from tests.e2e.digits.team import digits

pytestmark = pytest.mark.timeout(1200)
OWN_KINDS = "dd,de"


def named(kubectl, *scope):
    """Every object that bears the operator's name in its own or in its labels, but for what is the cluster's."""
    kinds = kubectl("api-resources", "--verbs=list", "--output=name", *scope).split()
    # Events are history; and whether a volume outlives its claim is its class's choice, which here is to keep it.
    watched = sorted(set(kinds) - {"events", "events.events.k8s.io", "persistentvolumes"})
    everywhere = () if scope == ("--namespaced=false",) else ("--all-namespaces",)
    listed = kubectl("get", ",".join(watched), *everywhere, "--ignore-not-found", "--show-labels", "--no-headers")
    return {line for line in listed.splitlines() if "diffusion" in line.replace(layout.NAME, "")}


def test_a_deleted_deployment_takes_all_that_was_made_for_it(served):
    kubectl, scope = served.kubectl, ("--namespace", served.namespace)
    served.apply(digits())
    served.delete(OWN_KINDS, "--all")
    kinds = "pods,deployments,replicasets,services,jobs,configmaps,poddisruptionbudgets,networkpolicies,controllerrevisions,endpointslices"
    wait_until(
        "its objects to go",
        lambda: not kubectl("get", kinds, *scope, "--selector", "app.kubernetes.io/managed-by=diffusion-operator", "--no-headers"),
        120,
    )
    # The volume with the engines is the team's to keep or to delete, as its claim says.
    assert kubectl.json("get", "pvc", "diffusion-engine-store", *scope)["metadata"].get("ownerReferences", []) == []


def test_uninstalling_leaves_only_what_helm_was_told_to_keep(team):
    kubectl = team.kubectl
    helm(kubectl, "uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "180s")
    assert {name for name in kubectl("get", "crd", "--output=name").split("\n") if "diffusion" in name} == {
        f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in CRDS
    }
    kubectl("delete", "crd", *CRDS)
    kubectl("delete", "namespace", SYSTEM, team.namespace, "--timeout=240s")
    assert named(kubectl, "--namespaced=false") | named(kubectl, "--namespaced=true") == set()
