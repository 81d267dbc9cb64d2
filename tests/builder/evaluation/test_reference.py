from __future__ import annotations

import numpy as np
import pytest

from engine_builder.errors import QualityBudgetError
from engine_builder.evaluation.reference import draw, draw_reference, load_reference, save_reference
from engine_builder.evaluation.samples import Sample
from engine_runtime.requests import GenerationResult, Timings

SAMPLES = [Sample(f"a “{index}”", index) for index in range(5)]


class Painter:
    """Draws noise of the seed; `jitter` makes each run differ a little, as kernels with atomics do."""

    def __init__(self, jitter: int = 0, blank: bool = False) -> None:
        self.batches: list[int] = []
        self._jitter = jitter
        self._blank = blank

    def generate(self, requests, on_step=None, on_body=None):
        self.batches.append(len(requests))
        return [self._draw(request) for request in requests]

    def _draw(self, request) -> GenerationResult:
        random = np.random.default_rng(request.seed)
        picture = random.integers(0, 200, (16, 16, 3), dtype=np.uint8) + np.uint8(self._jitter * len(self.batches))
        picture = np.zeros_like(picture) if self._blank else picture
        latent = random.standard_normal((4, 8), dtype=np.float32)
        computed = (True, request.seed % 2 == 0)
        return GenerationResult({"image": picture}, {"image": latent}, request.seed, "16x16", computed, False, Timings(0, 0, 0))


def test_a_drawing_keeps_the_order_and_the_batch_size() -> None:
    painter = Painter()
    drawing = draw(painter, SAMPLES, batch_size=2)
    assert painter.batches == [2, 2, 1]
    assert drawing.pictures.shape == (5, 16, 16, 3)
    assert drawing.skip_ratio == pytest.approx(0.2)
    np.testing.assert_array_equal(drawing.pictures[3], np.random.default_rng(3).integers(0, 200, (16, 16, 3), dtype=np.uint8))


def test_a_deterministic_model_has_a_noise_floor_of_100_db() -> None:
    assert draw_reference(Painter(), SAMPLES, size="16x16").rerun_psnr == 100


def test_the_noise_floor_shows_a_model_that_does_not_repeat_itself() -> None:
    assert draw_reference(Painter(jitter=2), SAMPLES, size="16x16").rerun_psnr == pytest.approx(20 * np.log10(255 / 2))


def test_a_reference_survives_its_folder(tmp_path) -> None:
    reference = draw_reference(Painter(), SAMPLES, size="16x16")
    save_reference(reference, tmp_path / "reference")
    loaded = load_reference(tmp_path / "reference")
    assert loaded.samples == tuple(SAMPLES)
    assert (loaded.size, loaded.rerun_psnr) == ("16x16", 100)
    np.testing.assert_array_equal(loaded.pictures, reference.pictures)
    np.testing.assert_array_equal(loaded.latents["image"], reference.latents["image"])


def test_a_blank_model_gives_no_reference() -> None:
    with pytest.raises(QualityBudgetError, match="draws nothing"):
        draw_reference(Painter(blank=True), SAMPLES, size="16x16")
