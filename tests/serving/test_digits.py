"""The demo model as users get it: built, served by a real Triton, and asked by real clients."""

from __future__ import annotations

import io
import json
import queue
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image

from diffusion_api.serving import Serving
from engine_builder.store.checksums import differences
from engine_runtime.client import generate
from engine_runtime.triton.repository import link_model_repository
from engine_runtime.triton.server import LocalTriton
from examples.digits.judge import wrong_pictures
from examples.digits.vocabulary import prompt_for, ten_digits

PROMPTS = [prompt_for(digit) for digit in ten_digits()]


@pytest.fixture(scope="module")
def digits(demo_engine, installation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    link_model_repository(demo_engine / "model_repository", folder / "models", Serving())
    with LocalTriton(folder / "models", installation=installation, log_file=folder / "triton.log") as server:
        yield server


def drawn(url: str, prompt: str, seed: int) -> bytes:
    *_, answer = generate(url, prompt, seed=seed)
    return answer.data


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_ten_prompts_draw_the_right_digit_in_the_right_colour(digits):
    pictures = [pixels(drawn(digits.grpc_url, prompt, seed)) for seed, prompt in enumerate(PROMPTS)]
    assert wrong_pictures(PROMPTS, np.stack(pictures)) == []


def test_the_same_request_gives_the_same_picture_byte_for_byte(digits):
    assert drawn(digits.grpc_url, PROMPTS[3], 7) == drawn(digits.grpc_url, PROMPTS[3], 7)


def test_serving_leaves_the_engine_as_it_was_built(digits, demo_engine):
    drawn(digits.grpc_url, PROMPTS[0], 0)
    assert differences(demo_engine, full=True) == ()


def test_another_seed_gives_another_picture(digits):
    assert drawn(digits.grpc_url, PROMPTS[3], 7) != drawn(digits.grpc_url, PROMPTS[3], 8)


def test_a_plain_triton_client_draws_too(digits):
    answers: queue.Queue = queue.Queue()
    with triton.InferenceServerClient(digits.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        prompt = triton.InferInput("prompt", [1], "BYTES")
        prompt.set_data_from_numpy(np.array([PROMPTS[7].encode()], dtype=object))
        client.async_stream_infer("pipeline", [prompt])
        result, error = answers.get(timeout=60)
    assert error is None
    assert wrong_pictures([PROMPTS[7]], pixels(result.as_numpy("image")[0])[None]) == []


def test_eight_at_once_are_all_right_and_share_steps(digits):
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda seed: pixels(drawn(digits.grpc_url, PROMPTS[seed % 10], seed)), range(24)))
    assert wrong_pictures([PROMPTS[seed % 10] for seed in range(24)], np.stack(pictures)) == []
    with urllib.request.urlopen(digits.metrics_url) as response:
        counters = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if not line.startswith("#"))
    steps = float(counters['nv_inference_count{model="transformer",version="1"}'])
    batches = float(counters['nv_inference_exec_count{model="transformer",version="1"}'])
    assert batches < steps


def test_an_unknown_size_is_refused_with_those_there_are(digits):
    with pytest.raises(Exception, match="64x64"):
        list(generate(digits.grpc_url, PROMPTS[0], size="4096x4096"))


def test_the_manifest_served_is_the_one_built(demo_engine):
    manifest = json.loads((demo_engine / "model_repository" / "pipeline" / "1" / "engine.json").read_text())
    report = json.loads((demo_engine / "build.json").read_text())
    assert manifest["engineKey"] == report["engineKey"]
