"""Claims about a served engine, made by real clients of a real tritonserver."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine_runtime.client import generate

pytestmark = pytest.mark.serving


def picture(answer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.data)))


def test_a_prompt_becomes_a_picture(triton):
    (answer,) = generate(triton.grpc_url, "red", seed=1)
    assert answer.content_type == "image/png"
    assert picture(answer).shape == (16, 32, 3)
    assert picture(answer).std() > 10
    assert answer.metadata["seed"] == 1
    assert answer.metadata["size"] == "32x16"
    assert answer.metadata["steps"] == {"computed": 4, "skipped": 0}
