"""From `helm install` to pictures: a real API server, a real builder Job, real Triton pods."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from examples.digits.judge import wrong_pictures
from tests.e2e.digits.team import PROMPTS

pytestmark = pytest.mark.timeout(1200)


def test_the_service_draws_what_the_prompts_say(served):
    pictures = [np.asarray(Image.open(io.BytesIO(served.draw(prompt))).convert("RGB")) for prompt in PROMPTS]
    assert wrong_pictures(PROMPTS, np.stack(pictures)) == []


def test_the_same_request_gives_the_same_bytes(served):
    assert served.draw(PROMPTS[0], seed=7) == served.draw(PROMPTS[0], seed=7)


def test_status_tells_engine_recipe_and_quality(served):
    status = served.get("dd")["status"]
    engine = served.get("de", status["engine"]["name"])
    assert {each["type"] for each in status["conditions"] if each["status"] == "True"} >= {"Ready", "EngineBuilt", "QualityGatePassed"}
    result = engine["status"]["result"]
    assert status["recipe"] == result["recipe"]["label"]
    assert status["qualitySummary"] == result["qualitySummary"]
