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
from typer.testing import CliRunner

from diffusion_api.serving import Serving
from diffusionctl.app import app
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


def tensor(name: str, data_type: str, value: object) -> triton.InferInput:
    made = triton.InferInput(name, [1], data_type)
    made.set_data_from_numpy(np.array([value], dtype=object if data_type == "BYTES" else np.int64))
    return made


def test_a_plain_triton_client_draws_the_ten_prompts_right_and_the_same_again(digits):
    answers: queue.Queue = queue.Queue()
    pictures = []
    with triton.InferenceServerClient(digits.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for seed, prompt in [*enumerate(PROMPTS), (0, PROMPTS[0])]:
            client.async_stream_infer("pipeline", [tensor("prompt", "BYTES", prompt.encode()), tensor("seed", "INT64", seed)])
            result, error = answers.get(timeout=60)
            assert error is None, prompt
            pictures.append(result.as_numpy("image")[0])
    *ten, again = pictures
    assert wrong_pictures(PROMPTS, np.stack([pixels(picture) for picture in ten])) == []
    assert again == ten[0]


def test_diffusionctl_generate_draws_the_ten_prompts_right_and_the_same_again(digits, tmp_path):
    def asked(name: str, prompt: str, seed: int) -> bytes:
        out = tmp_path / name
        said = CliRunner().invoke(app, ["generate", prompt, "--out", str(out), "--url", digits.grpc_url, "--seed", str(seed)])
        assert said.exit_code == 0, said.output
        return out.read_bytes()

    ten = [asked(f"{seed}.png", prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    assert wrong_pictures(PROMPTS, np.stack([pixels(picture) for picture in ten])) == []
    assert asked("again.png", PROMPTS[0], 0) == ten[0]


def test_a_seed_that_was_drawn_and_printed_draws_the_same_picture_again(digits, tmp_path):
    def asked(name: str, *options: str) -> tuple[bytes, int]:
        out = tmp_path / name
        said = CliRunner().invoke(app, ["generate", PROMPTS[5], "--out", str(out), "--url", digits.grpc_url, "--json", *options])
        assert said.exit_code == 0, said.output
        return out.read_bytes(), json.loads(said.stdout)["seed"]

    picture, seed = asked("first.png")
    assert asked("again.png", "--seed", str(seed)) == (picture, seed)


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
