"""What the operator may do: enough for every manifest that it writes, and nothing wider."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from diffusion_operator.cluster import kinds
from tests.chart.rendering import NAMESPACE, ROOT, VARIANTS, Manifest, of_kind, one, render
from tests.unit.diffusion_operator.test_manifests_against_kubernetes import manifests

WRITES = {"create", "patch", "update", "delete"}
ROLES = ("Role", "ClusterRole")
# What it writes beside the children of a deployment: (group, resource).
OTHER_WRITES = {
    ("diffusionoperator.io", "diffusionengines"),
    ("diffusionoperator.io", "diffusiondeployments/status"),
    ("diffusionoperator.io", "diffusionengines/status"),
    ("events.k8s.io", "events"),
    ("keda.sh", "scaledobjects"),
    ("monitoring.coreos.com", "podmonitors"),
}


def is_hook(manifest: Manifest) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def roles(variant: str, *settings: str) -> list[Manifest]:
    return [each for kind in ROLES for each in of_kind(render(variant, *settings), kind)]


def rights(found: Iterable[Manifest]) -> dict[tuple[str, str], set[str]]:
    """Verbs by group and resource."""
    granted: dict[tuple[str, str], set[str]] = {}
    for role in found:
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    granted.setdefault((group, resource), set()).update(rule["verbs"])
    return granted


def operator_rights(variant: str, *settings: str) -> dict[tuple[str, str], set[str]]:
    return rights(role for role in roles(variant, *settings) if not is_hook(role))


def written() -> set[tuple[str, str]]:
    """Group and resource of every kind that the operator's manifests have."""
    resources = {"NetworkPolicy": "networkpolicies"}
    return {(each["apiVersion"].rpartition("/")[0], resources.get(each["kind"], f"{each['kind'].lower()}s")) for each in manifests()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_right_is_a_wildcard_and_none_reaches_secrets(variant):
    for role in roles(variant):
        for rule in role["rules"]:
            assert "nonResourceURLs" not in rule
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"secrets", "serviceaccounts", "pods/exec"} & set(rule["resources"])
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])


def test_the_operator_may_write_every_kind_that_it_makes():
    granted = operator_rights("everything")
    for resource in written():
        assert {"create", "patch"} <= granted.get(resource, set()), resource


def test_single_objects_may_be_read_only_where_the_code_asks_for_one():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "operator/diffusion_operator").rglob("*.py"))
    asked = set(re.findall(r"_client\.get\((?:ref\(kinds\.)?(\w[\w.]*)", sources))
    assert asked == {"CLAIM", "CONFIG_MAP", "self._lease"}
    assert '_request("GET", POD.path(pod.namespace, pod.name, "log")' in sources
    readable = {resource for resource, verbs in operator_rights("everything").items() if "get" in verbs}
    kinds_asked = {("", kinds.CLAIM.plural), ("", kinds.CONFIG_MAP.plural), (kinds.LEASE.group, kinds.LEASE.plural)}
    assert readable == kinds_asked | {("", "pods/log")}


def test_what_the_operator_holds_in_memory_it_may_list_and_watch():
    granted = operator_rights("everything")
    for kind in kinds.HELD:
        assert ({"list", "watch"} if kind.watched else {"list"}) <= granted[kind.group, kind.plural], kind.name


def test_the_operator_may_write_nothing_that_it_does_not_make():
    granted = operator_rights("everything")
    writable = {resource for resource, verbs in granted.items() if verbs & WRITES}
    assert writable == written() | OTHER_WRITES | {("coordination.k8s.io", "leases")}


def test_the_rights_are_those_that_are_documented():
    page = (ROOT / "docs/reference/operator.md").read_text(encoding="utf-8").split("## Rights")[1].split("\n## ")[0]
    documented: dict[tuple[str, str], set[str]] = {}
    for group, resources, verbs in re.findall(r"^\| (\S+) \| (`.+?`) \| ([a-z, ]+) \|", page, re.MULTILINE):
        for resource in re.findall(r"`([\w/]+)`", resources):
            documented.setdefault(("" if group == "(core)" else group.strip("`"), resource), set()).update(verbs.split(", "))
    assert operator_rights("everything") == documented


def test_only_what_is_configured_is_allowed():
    assert operator_rights("minimal")["", "persistentvolumeclaims"] == {"get"}
    assert ("", "persistentvolumeclaims") not in operator_rights("bucket")
    assert ("coordination.k8s.io", "leases") not in operator_rights("minimal")


def test_claim_templates_of_running_pods_are_in_reach_after_they_were_turned_off():
    templates = ("resource.k8s.io", "resourceclaimtemplates")
    assert operator_rights("default")[templates] == operator_rights("everything")[templates] == {"list", "create", "patch", "delete"}


def test_with_named_namespaces_nothing_reaches_beyond_them():
    manifests = render("minimal")
    assert not of_kind(manifests, "ClusterRole")
    assert not of_kind(manifests, "ClusterRoleBinding")
    assert [role["metadata"]["namespace"] for role in of_kind(manifests, "Role")] == ["pictures", "007"]


def test_with_named_namespaces_the_labels_of_nodes_are_all_that_is_cluster_wide():
    cluster_wide = [role for role in of_kind(render("bucket"), "ClusterRole") if not is_hook(role)]
    assert rights(cluster_wide) == {("", "nodes"): {"list"}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_role_is_bound_to_the_account_of_a_pod_that_is_there(variant):
    manifests = render(variant)
    accounts = {each["metadata"]["name"] for each in of_kind(manifests, "ServiceAccount")}
    bindings = [*of_kind(manifests, "RoleBinding"), *of_kind(manifests, "ClusterRoleBinding")]
    bound = {(each["roleRef"]["kind"], each["metadata"].get("namespace"), each["roleRef"]["name"]) for each in bindings}
    assert bound == {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in roles(variant)}
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert subject["name"] in accounts
        assert subject["namespace"] == NAMESPACE
    assert one(manifests, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] in accounts


def test_leases_are_held_to_the_operators_own():
    rules = [rule for role in roles("default") for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert [rule for rule in rules if "resourceNames" not in rule] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
    ]


def test_two_releases_of_one_name_share_no_cluster_wide_object():
    assert all(role["metadata"]["name"].startswith(f"painter-diffusion-operator-{NAMESPACE}") for role in of_kind(render(), "ClusterRole"))


def test_rights_can_be_left_to_the_administrator():
    assert [role for role in roles("default", "rbac.create=false") if not is_hook(role)] == []
    assert roles("default", "rbac.create=false", "crds.install=false") == []
