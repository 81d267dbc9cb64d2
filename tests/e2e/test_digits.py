"""From `helm install` to pictures: a real API server, a real builder Job, real Triton pods."""

from __future__ import annotations

import io

import numpy as np
import pytest
import yaml
from PIL import Image

from engine_runtime.client import generate
from examples.digits.judge import wrong_pictures
from tests.e2e.cluster.addons import renew_volumes
from tests.e2e.cluster.processes import ClusterError
from tests.e2e.installation import MODELS, REPOSITORY, SYSTEM, installed, provide_checkpoint, provide_images

NAMESPACE = "pictures"
PROMPTS = ("a red digit seven", "a blue digit three", "a green digit one")
BUILD_SECONDS = 420

pytestmark = pytest.mark.timeout(1200)


def digits(**optimization):
    """`examples/digits.yaml`, with the checkpoint on a claim, and one recipe so that the build takes half a minute."""
    deployment = yaml.safe_load((REPOSITORY / "examples" / "digits.yaml").read_text())
    spec = deployment["spec"]
    spec["model"]["uri"] = f"pvc://{MODELS}/digits-klein"
    spec["optimization"].update({"quantization": {"format": "None"}, "stepCache": {"policy": "None"}, **optimization})
    spec["rollout"] = {"maxSurge": 1, "maxUnavailable": 0}
    return deployment


@pytest.fixture(scope="module")
def team(own_cluster):
    """The operator, installed by Helm from its own images, and a namespace with a checkpoint."""
    if REPOSITORY.is_relative_to("/tmp"):
        pytest.skip("pods use this checkout's Python environments and have a /tmp of their own: clone it elsewhere than below /tmp")
    kubectl = own_cluster.kubectl
    renew_volumes(kubectl)
    provide_images()
    with installed(kubectl):
        kubectl("create", "namespace", NAMESPACE)
        kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged")
        provide_checkpoint(kubectl, NAMESPACE)
        kubectl("label", "namespace", NAMESPACE, "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
        try:
            yield kubectl
        finally:
            kubectl("delete", "namespace", NAMESPACE, "--timeout=240s")


@pytest.fixture(scope="module")
def served(team):
    """The digits, applied and Ready."""
    team.apply(digits(), namespace=NAMESPACE)
    wait_ready(team, BUILD_SECONDS)
    return team


def wait_ready(kubectl, seconds, generation=1):
    try:
        kubectl.wait(f"jsonpath={{.status.observedGeneration}}={generation}", "dd/digits", namespace=NAMESPACE, seconds=60)
        kubectl.wait("condition=Ready", "dd/digits", namespace=NAMESPACE, seconds=seconds)
    except ClusterError as error:
        told = [
            kubectl.run("get", "dd,de,job,deployment,pod,event", "--namespace", NAMESPACE).stdout,
            kubectl.run("get", "dd,de", "--namespace", NAMESPACE, "--output", "jsonpath={.items[*].status}").stdout,
            kubectl.run("logs", "--namespace", SYSTEM, "deployment/diffusion-operator", "--tail=40").stdout,
        ]
        raise AssertionError("\n".join([str(error), *told])) from None


def address(kubectl):
    service = kubectl.json("get", "service", "digits", "--namespace", NAMESPACE)["spec"]
    port = next(port["port"] for port in service["ports"] if port["name"] == "grpc")
    return f"{service['clusterIP']}:{port}"


def draw(url, prompt, seed=0):
    return list(generate(url, prompt, seed=seed, timeout_seconds=60))[-1].data


def test_the_service_draws_what_the_prompts_say(served):
    url = address(served)
    pictures = [np.asarray(Image.open(io.BytesIO(draw(url, prompt))).convert("RGB")) for prompt in PROMPTS]
    assert wrong_pictures(PROMPTS, np.stack(pictures)) == []


def test_the_same_request_gives_the_same_bytes(served):
    url = address(served)
    assert draw(url, PROMPTS[0], seed=7) == draw(url, PROMPTS[0], seed=7)


def test_status_tells_engine_recipe_and_quality(served):
    status = served.json("get", "dd", "digits", "--namespace", NAMESPACE)["status"]
    engine = served.json("get", "de", status["engine"]["name"], "--namespace", NAMESPACE)
    assert {each["type"] for each in status["conditions"] if each["status"] == "True"} >= {"Ready", "EngineBuilt", "QualityGatePassed"}
    result = engine["status"]["result"]
    assert status["recipe"] == result["recipe"]["label"]
    assert status["qualitySummary"] == result["qualitySummary"]
