from __future__ import annotations

import pytest

from diffusion_api.deployment import MeasuredQuality
from engine_builder.report import words


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (100.0, "identical"), (41.26, "41.3 dB")])
def test_decibels(value: float | None, text: str) -> None:
    assert words.decibels(value) == text


@pytest.mark.parametrize(
    ("quality", "text"),
    [
        (None, "–"),
        (MeasuredQuality(psnr=41.26), "41.3 dB"),
        (MeasuredQuality(psnr=41.26, worst_psnr=36), "41.3 dB, worst 36.0 dB"),
        (MeasuredQuality(psnr=100, worst_psnr=100), "identical"),
    ],
)
def test_psnr_names_the_worst_picture(quality: MeasuredQuality | None, text: str) -> None:
    assert words.psnr(quality) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (2.34, "2.3 MiB"), (512.3, "512 MiB"), (7578.0, "7.4 GiB")])
def test_mebibytes(value: float | None, text: str) -> None:
    assert words.mebibytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(3.21, "3.2 ms"), (84.4, "84 ms"), (2310, "2.31 s")])
def test_milliseconds(value: float, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.44, "0.4 s"), (42, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s")])
def test_seconds(value: float, text: str) -> None:
    assert words.seconds(value) == text
