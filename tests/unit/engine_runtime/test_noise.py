"""Claims about the noise that pictures start from."""

from __future__ import annotations

import hashlib

import numpy as np

from diffusion_api.engine_manifest import ShapePlan
from diffusion_api.model_spec import Shape
from engine_runtime.noise import initial_latents
from engine_runtime.seeds import MAX_SEED, random_seed


def plan(**latents: tuple[int, ...]) -> ShapePlan:
    return ShapePlan(shape=Shape(width=1024, height=1024), dims={}, latents=latents, sigmas=(1.0, 0.0))


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()[:16]


def test_noise_of_a_seed_is_the_same_on_every_machine():
    drawn = initial_latents(plan(image=(4096, 128), audio=(1000,)), 7)
    assert {name: digest(array) for name, array in drawn.items()} == {"image": "830f93d2c6c9741d", "audio": "45b56df33f7438c3"}


def test_noise_of_a_stream_does_not_depend_on_other_streams():
    alone, together = initial_latents(plan(audio=(9,)), 1), initial_latents(plan(image=(4,), audio=(9,)), 1)
    np.testing.assert_array_equal(alone["audio"], together["audio"])


def test_noise_is_standard_normal_in_fp32():
    noise = initial_latents(plan(image=(4096, 128)), 0)["image"]
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


def test_other_seeds_give_other_noise():
    assert digest(initial_latents(plan(image=(8,)), 0)["image"]) != digest(initial_latents(plan(image=(8,)), MAX_SEED)["image"])


def test_random_seeds_survive_a_json_number():
    assert all(0 <= random_seed() < 2**53 for _ in range(100))
