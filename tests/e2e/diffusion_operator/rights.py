"""The rights that docs/reference/operator.md lists, as RBAC objects: the operator of these tests has them and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "operator.md"


def rules() -> list[dict[str, Any]]:
    """Every row of the tables under "Rights"."""
    text = PAGE.read_text(encoding="utf-8").partition("## Rights")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`|\(core\)) \| ([^|]+) \| ([a-z, ]+) \|", text, re.MULTILINE)
    return [
        {
            "apiGroups": ["" if group == "(core)" else group.strip("`")],
            "resources": re.findall(r"`([^`]+)`", resources),
            "verbs": [verb.strip() for verb in verbs.split(",")],
        }
        for group, resources, verbs in rows
    ]


def namespaced_role_and_binding(user: str, namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Role with the first table's rules and the Lease's, bound to a user; it holds no right in the cluster as a whole."""
    role, binding = role_and_binding(user)
    metadata = {"name": "diffusion-operator", "namespace": namespace}
    own = [rule for rule in role["rules"] if rule["resources"] != ["nodes"]]
    role_ref = {**binding["roleRef"], "kind": "Role"}
    return {**role, "kind": "Role", "metadata": metadata, "rules": own}, {
        **binding,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": role_ref,
    }


def role_and_binding(user: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ClusterRole with these rules, bound to a user."""
    api, name = "rbac.authorization.k8s.io", "diffusion-operator"
    role = {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules()}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": user, "apiGroup": api}],
    }
    return role, binding
