"""The example for B200 as far as a cluster without one can take it: accepted, explained, scheduled. Its pods are simulated."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.e2e.cluster.simulated_nodes import start_kwok, stop_kwok
from tests.e2e.digits.installation import REPOSITORY
from tests.unit.diffusion_operator.scenes import RESULT

EXAMPLE = REPOSITORY / "examples" / "flux2-klein-b200.yaml"
NAME = "flux2-klein"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def applied(team):
    deployment = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    team.apply(deployment)
    yield team
    engine = team.status("dd", NAME)["engine"]["name"]
    team.delete("dd", NAME)
    team.delete("de", engine)


@pytest.fixture
def add_b200(team):
    """Adds a node with eight of them, whose builders end at once with a result."""
    last_words = json.dumps({"event": "result", "succeeded": True, "result": RESULT.to_wire()})
    yield lambda: start_kwok(team.kubectl, nodes=1, last_words=last_words)
    stop_kwok(team.kubectl)


def test_the_example_passes_a_dry_run(team):
    said = team.kubectl("apply", "--dry-run=server", f"--filename={EXAMPLE}", "--namespace", team.namespace)
    assert said.strip() == f"diffusiondeployment.diffusionoperator.io/{NAME} created (server dry run)"


def test_pods_wait_for_a_b200_and_status_says_so_and_then_they_land_on_it(applied, add_b200):
    team = applied
    team.wait_for_reason("dd", NAME, "NoMatchingNode")
    engine = team.status("dd", NAME)["engine"]["name"]
    said = team.wait_for_reason("de", engine, "NoMatchingNode")
    assert "no node is labelled nvidia.com/gpu.product=NVIDIA-B200 (no node has that label at all)" in said["message"]
    nodes = add_b200()
    team.wait_ready(NAME, 120)
    pods = [*team.pods(NAME), *team.items("pods", f"diffusionoperator.io/engine={engine},batch.kubernetes.io/job-name")]
    assert len(pods) == 2
    for pod in pods:
        assert [pod["spec"]["nodeName"]] == nodes
        assert [each["resources"]["limits"].get("nvidia.com/gpu") for each in pod["spec"]["containers"]] == ["1"]
        assert pod["spec"]["nodeSelector"]["nvidia.com/gpu.product"] == "NVIDIA-B200"
