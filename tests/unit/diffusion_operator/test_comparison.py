from __future__ import annotations

import copy

import pytest

from diffusion_operator.reconciling.comparison import is_applied, stamped

MANIFEST = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "klein", "namespace": "pictures", "labels": {"a": "b"}},
    "spec": {
        "replicas": 0,
        "paused": False,
        "egress": [],
        "containers": [
            {
                "name": "triton",
                "env": [{"name": "EMPTY", "value": ""}, {"name": "VERSION", "value": "1.0"}],
                "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
                "command": ["tritonserver", "--port=1"],
            }
        ],
        "tolerations": [{"operator": "Exists"}],
    },
}


def live():
    """As an API server gives it: defaults filled in, what is empty left out, quantities in their own form."""
    body = copy.deepcopy(stamped(MANIFEST))
    body["metadata"] |= {"uid": "1", "resourceVersion": "7"}
    spec = body["spec"]
    del spec["paused"], spec["egress"]
    (container,) = spec["containers"]
    container |= {"terminationMessagePath": "/dev/termination-log"}
    del container["env"][0]["value"]
    container["resources"]["requests"] = {"cpu": "500m", "memory": "1Gi"}
    spec["containers"].append({"name": "injected"})
    return body


def test_what_an_api_server_adds_and_leaves_out_is_no_difference():
    assert is_applied(stamped(MANIFEST), live())


def change(body, path, value):
    for key in path[:-1]:
        body = body[key]
    if value is None:
        del body[path[-1]]
    else:
        body[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 3),
        (("spec", "replicas"), False),
        (("spec", "egress"), [{}]),
        (("spec", "tolerations"), [{"operator": "Exists"}, {"operator": "Equal"}]),
        (("spec", "tolerations"), []),
        (("spec", "containers", 0, "command"), ["tritonserver"]),
        (("spec", "containers", 0, "env"), [{"name": "EMPTY"}]),
        (("spec", "containers", 0, "env", 1, "value"), "1"),
        (("spec", "containers", 0, "resources", "requests", "cpu"), "501m"),
        (("spec", "containers", 0, "name"), "other"),
        (("metadata", "labels", "a"), "c"),
        (("metadata", "labels"), None),
    ],
    ids=str,
)
def test_drift_is_a_difference(path, value):
    body = live()
    change(body, path, value)
    assert not is_applied(stamped(MANIFEST), body)


def test_what_a_newer_manifest_no_longer_has_is_a_difference():
    newer = copy.deepcopy(MANIFEST)
    del newer["spec"]["tolerations"]
    assert not is_applied(stamped(newer), live())


def test_stamping_leaves_the_manifest_alone():
    manifest = copy.deepcopy(MANIFEST)
    stamped(manifest)
    assert manifest == MANIFEST
