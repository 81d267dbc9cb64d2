"""Claims about a served engine, made by real clients of a real tritonserver."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine_runtime.client import ServerError, generate
from tests.serving.observing import metric, picture, post, wait_for_metric
from tests.support.waiting import wait_until

pytestmark = pytest.mark.serving


def test_a_prompt_becomes_a_picture(triton):
    (answer,) = generate(triton.grpc_url, "red", seed=1)
    assert answer.content_type == "image/png"
    assert picture(answer).shape == (16, 32, 3)
    assert picture(answer).std() > 10
    assert answer.metadata["seed"] == 1
    assert answer.metadata["size"] == "32x16"
    assert answer.metadata["steps"] == {"computed": 4, "skipped": 0}


def test_the_same_request_gives_the_same_bytes(triton):
    (first,), (second,) = (tuple(generate(triton.grpc_url, "red", seed=2)) for _ in range(2))
    assert first.data == second.data


def test_prompt_and_seed_matter(triton):
    pictures = {next(iter(generate(triton.grpc_url, prompt, seed=seed))).data for prompt, seed in (("red", 1), ("blue", 1), ("red", 2))}
    assert len(pictures) == 3


def test_a_request_without_a_seed_is_told_the_one_it_got(triton):
    (first,) = generate(triton.grpc_url, "red")
    (again,) = generate(triton.grpc_url, "red", seed=first.metadata["seed"])
    assert again.data == first.data


def test_concurrent_requests_share_denoising_steps(triton):
    labels = {"model": "transformer"}
    before = [metric(triton, name, **labels) for name in ("nv_inference_count", "nv_inference_exec_count")]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: next(iter(generate(triton.grpc_url, "green", seed=seed))), range(8)))
    after = [metric(triton, name, **labels) for name in ("nv_inference_count", "nv_inference_exec_count")]
    assert after[0] - before[0] == 8 * 4
    assert after[1] - before[1] <= 16  # 4 is perfect sharing; alone they need 32.
    for seed, answer in enumerate(together):
        assert next(iter(generate(triton.grpc_url, "green", seed=seed))).data == answer.data


def test_previews_come_before_the_result(triton):
    answers = list(generate(triton.grpc_url, "blue", seed=3, preview_every=1))
    assert [answer.is_preview for answer in answers] == [True, True, True, False]
    assert [answer.metadata.get("step") for answer in answers] == [1, 2, 3, None]
    assert picture(answers[0]).shape == (16, 32, 3)


def test_another_size_is_drawn_where_it_is_served(triton):
    (answer,) = generate(triton.grpc_url, "red", seed=1, size="16x16")
    assert picture(answer).shape == (16, 16, 3)


@pytest.mark.parametrize(("name", "magic"), [("png", b"\x89PNG"), ("webp", b"RIFF"), ("jpeg", b"\xff\xd8\xff")])
def test_pictures_come_in_the_format_asked_for(triton, name, magic):
    (answer,) = generate(triton.grpc_url, "red", seed=1, output_format=name)
    assert answer.data.startswith(magic)
    assert answer.content_type == f"image/{name}"


def test_raw_pictures_are_the_pixels_of_the_png(triton):
    (raw,), (png,) = (tuple(generate(triton.grpc_url, "red", seed=1, output_format=name)) for name in ("raw", "png"))
    assert raw.data == picture(png).tobytes()
    assert raw.metadata["shape"] == [16, 32, 3]


def test_a_cut_prompt_is_told(triton):
    (cut,), (whole,) = (tuple(generate(triton.grpc_url, prompt, seed=1)) for prompt in ("red blue red blue red", "red"))
    assert cut.metadata["promptWasCut"]
    assert not whole.metadata["promptWasCut"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "20x20"}, "size 20x20 is not served; use one of 32x16, 16x16"),
        ({"output_format": "gif"}, "output format gif does not exist; use one of png, webp, jpeg, raw"),
        ({"seed": -5}, "seed is -5; use 0 to"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; use 0 to 50"),
        ({"preview_every": -1}, "preview_every is -1"),
    ],
)
def test_a_wrong_request_is_told_what_would_be_right(triton, wrong, message):
    with pytest.raises(ServerError, match=re.escape(message)):
        next(iter(generate(triton.grpc_url, "red", **wrong)))


def test_generate_stream_takes_json_and_gives_base64(triton):
    body = {"prompt": "red", "seed": 1, "base64": True, "preview_every": 2}
    events = [json.loads(line.removeprefix("data: ")) for line in post(triton, "generate_stream", body).splitlines() if line]
    assert [json.loads(event["metadata"])["type"] for event in events] == ["preview", "result"]
    (same,) = generate(triton.grpc_url, "red", seed=1)
    assert base64.b64decode(events[-1]["image"]) == same.data


def test_a_prompt_that_is_not_utf8_is_refused(triton):
    with pytest.raises(ServerError, match="prompt is not UTF-8: invalid start byte at byte 1"):
        next(iter(generate(triton.grpc_url, NotText("r\xffd"), seed=1)))


class NotText(str):
    """Encodes as Latin-1, as a careless client would."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        return super().encode("latin-1", errors)


def test_an_error_answers_http_with_its_message(triton):
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(triton, "generate", {"prompt": "red", "size": "1x1"})
    assert refused.value.code == 400
    assert "use one of 32x16, 16x16" in refused.value.read().decode()


def test_the_prompt_cache_is_counted(triton):
    hits = metric(triton, "diffusion_prompt_cache_total", outcome="hit")
    for _ in range(3):
        next(iter(generate(triton.grpc_url, "red green blue", seed=1)))
    wait_until("two more hits", lambda: metric(triton, "diffusion_prompt_cache_total", outcome="hit") >= hits + 2, 10)


def test_steps_and_requests_are_counted(triton):
    wait_for_metric(triton, 0, "diffusion_pending_requests")
    before = metric(triton, "diffusion_steps_total", outcome="computed"), metric(triton, "diffusion_requests_total", outcome="ok")
    next(iter(generate(triton.grpc_url, "red", seed=1)))
    wait_for_metric(triton, before[0] + 4, "diffusion_steps_total", outcome="computed")
    wait_for_metric(triton, before[1] + 1, "diffusion_requests_total", outcome="ok")
    wait_for_metric(triton, 0, "diffusion_pending_requests")


def test_a_decoder_that_overflows_is_an_error_and_spares_its_neighbours(triton):
    failed = metric(triton, "diffusion_requests_total", outcome="failed")
    (alone,) = generate(triton.grpc_url, "red", seed=5)
    with ThreadPoolExecutor(4) as pool:
        neighbours = [pool.submit(lambda: next(iter(generate(triton.grpc_url, "red", seed=5)))) for _ in range(3)]
        with pytest.raises(ServerError, match="decoder of stream image gave one value everywhere"):
            next(iter(generate(triton.grpc_url, "overflow", seed=5)))
    assert {neighbour.result().data for neighbour in neighbours} == {alone.data}
    wait_for_metric(triton, failed + 1, "diffusion_requests_total", outcome="failed")
