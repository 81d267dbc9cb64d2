"""Claims about how a request is read and answered; over the wire they are claimed in tests/serving."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from engine_runtime.errors import InvalidRequestError
from engine_runtime.images import OutputFormat
from engine_runtime.requests import GenerationResult, Timings
from engine_runtime.triton.request_fields import parse_request, result_answer
from tests.unit.engine_runtime import toy

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
PROMPT = np.array([b"caf\xc3\xa9"], dtype=np.object_)


def parse(**fields):
    return parse_request({"prompt": PROMPT} | {name: np.array([value]) for name, value in fields.items()}, toy.manifest())


def result() -> GenerationResult:
    return GenerationResult(
        outputs={"image": PICTURE},
        latents={},
        seed=4,
        size="16x16",
        computed=(True, False, True),
        prompt_was_cut=False,
        timings=Timings(0.001, 0.02, 0.003),
    )


def test_what_is_left_out_has_a_default():
    request = parse()
    assert request.generation.prompt == "café"
    assert request.generation.size == "16x16"
    assert 0 <= request.generation.seed < 2**53
    assert (request.output_format, request.preview_every, request.base64) == (OutputFormat.PNG, 0, False)


def test_seeds_of_a_request_are_kept():
    assert parse(seed=2**63 - 1).generation.seed == 2**63 - 1


def test_two_requests_without_a_seed_get_different_ones():
    assert parse().generation.seed != parse().generation.seed


def test_a_prompt_of_a_megabyte_is_refused():
    with pytest.raises(InvalidRequestError, match="prompt has 1000000 bytes; at most 65536"):
        parse(prompt=b"a" * 1_000_000)


@pytest.mark.parametrize("scale", [-1.0, 51.0, float("inf")])
def test_guidance_has_bounds(scale):
    with pytest.raises(InvalidRequestError, match="use 0 to 50"):
        parse(guidance_scale=scale)


def test_the_answer_says_how_the_picture_came_about():
    answer = result_answer(parse(output_format="raw", seed=4), result(), queued_seconds=0.5)
    assert answer.image == PICTURE.tobytes()
    assert json.loads(answer.metadata) == {
        "type": "result",
        "seed": 4,
        "size": "16x16",
        "shape": [2, 3, 3],
        "steps": {"computed": 2, "skipped": 1},
        "promptWasCut": False,
        "milliseconds": {"queued": 500.0, "encode": 1.0, "denoise": 20.0, "decode": 3.0},
    }


def test_base64_carries_the_same_bytes():
    answer = result_answer(parse(output_format="raw", base64=True), result(), queued_seconds=0)
    assert base64.b64decode(answer.image) == PICTURE.tobytes()
