"""From `helm install` and `kubectl apply` of the example as it is to pictures: a real API server, a real builder Job, a real Triton pod."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from engine_runtime.client import generate
from examples.digits.judge import wrong_pictures
from tests.e2e.digits.installation import provide_namespace, remove_namespace
from tests.e2e.digits.team import PROMPTS, Team

pytestmark = pytest.mark.timeout(1200)
NAMESPACE = "example"


@pytest.fixture(scope="module")
def example(team: Team) -> Iterator[Team]:
    """The example, served in a namespace that holds nothing but it."""
    provide_namespace(team.kubectl, NAMESPACE)
    try:
        newcomer = Team(team.kubectl, NAMESPACE)
        newcomer.apply_example()
        newcomer.wait_ready()
        yield newcomer
    finally:
        remove_namespace(team.kubectl, NAMESPACE)


def test_the_service_draws_what_the_prompts_say(example):
    pictures = [np.asarray(Image.open(io.BytesIO(example.draw(prompt))).convert("RGB")) for prompt in PROMPTS]
    assert wrong_pictures(PROMPTS, np.stack(pictures)) == []


def test_the_same_request_gives_the_same_bytes(example):
    assert example.draw(PROMPTS[0], seed=7) == example.draw(PROMPTS[0], seed=7)


def test_a_forwarded_port_draws_the_same_picture(example):
    with example.forwarded() as address:
        *_, answer = generate(address, PROMPTS[0], seed=7, timeout_seconds=60)
    assert answer.data == example.draw(PROMPTS[0], seed=7)


def test_kubectl_scale_sets_the_number_of_pods_inside_the_bounds(example):
    example.patch("dd", "digits", {"spec": {"autoscaling": {"maxReplicas": 2}}})
    for wanted in (2, 1):
        example.kubectl("scale", "dd", "digits", f"--replicas={wanted}", "--namespace", example.namespace)
        example.wait(f"{wanted} pods", lambda count=wanted: example.status("dd")["readyReplicas"] == count, 180)
        example.wait_ready()
        assert len(example.pods()) == wanted


def test_status_tells_engine_recipe_and_quality(example):
    status = example.status("dd")
    engine = example.get("de", status["engine"]["name"])
    assert {each["type"] for each in status["conditions"] if each["status"] == "True"} >= {"Ready", "EngineBuilt", "QualityGatePassed"}
    result = engine["status"]["result"]
    assert status["recipe"] == result["recipe"]["label"]
    assert status["qualitySummary"] == result["qualitySummary"]
