"""The admission policy that docs/security.md shows, on a real API server: what it lets through and what it refuses."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from tests.e2e.cluster.processes import wait_until
from tests.e2e.diffusion_operator.conftest import CRDS

ROOT = CRDS.parent
EXAMPLE = yaml.safe_load((ROOT / "examples" / "flux2-klein-b200.yaml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
POLICY = [
    each
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    if "ValidatingAdmissionPolicy" in block
    for each in yaml.safe_load_all(block)
]


def with_model(**model):
    deployment = copy.deepcopy(EXAMPLE)
    deployment["spec"]["model"] = {key: value for key, value in model.items() if value}
    return deployment


@pytest.fixture
def refusal(kubectl, namespace):
    """Returns the API server's words on a deployment; empty: it would be taken."""

    def ask(deployment):
        return kubectl.run(
            "create", "--dry-run=server", "--namespace", namespace, "--filename", "-", input=yaml.safe_dump(deployment)
        ).stderr

    kubectl.apply(*POLICY)
    # The API server's own watch of policies follows a moment later.
    wait_until("the policy", lambda: "must begin with model-" in ask(with_model(uri="hf://a/b", secretName="other")), 30)
    yield ask
    kubectl("delete", *(f"{each['kind'].lower()}/{each['metadata']['name']}" for each in POLICY))


def test_the_policy_of_the_security_page_holds_secrets_to_names_and_hosts(refusal):
    student = {"uri": "https://elsewhere.example/student.safetensors", "format": "Diffusers"}
    assert refusal(with_model(uri="https://elsewhere.example/model")) == ""
    assert refusal(with_model(uri="https://models.example/model", secretName="model-token")) == ""
    for model in ({"uri": "https://elsewhere.example/model"}, {"uri": "hf://a/b", "student": student}):
        assert "models come from hf://, s3://models/ and https://models.example/ alone" in refusal(
            with_model(**model, secretName="model-token")
        )
