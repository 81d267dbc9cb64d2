"""Tells which digit a picture shows and in which colour, so that tests and the demo can check pictures against prompts.

Needs no torch and no weights: a support-vector classifier is trained on scikit-learn's digits in about a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from sklearn.svm import SVC

from examples.digits.strokes import digit_strokes
from examples.digits.vocabulary import COLORS, Digit, meaning

COARSE = 10
"""The classifier looks at 10×10 averages without their border: about what the data were before they were enlarged."""


def judge(images: npt.NDArray[np.uint8]) -> list[Digit]:
    """Return what each picture shows.

    Args:
        images: RGB, UINT8 [N, H, W, 3].
    """
    pixels = images.astype(np.float64) / 255
    gray = pixels.max(axis=-1)
    digits = _classifier().predict(_features(gray))
    return [Digit(int(digit), color) for digit, color in zip(digits, _colors(pixels, gray), strict=True)]


def wrong_pictures(prompts: Sequence[str], images: npt.NDArray[np.uint8]) -> list[str]:
    """Return a sentence for each picture that does not show what its prompt asks for; empty where all are right.

    Args:
        prompts: N prompts of the digits model, for example `a red digit seven`.
        images: RGB, UINT8 [N, H, W, 3].
    """
    judged = zip(prompts, judge(images), strict=True)
    return [f'"{prompt}" shows a {shown.color} {shown.digit}' for prompt, shown in judged if shown != meaning(prompt)]


@lru_cache(maxsize=1)
def _classifier() -> SVC:
    strokes, digits = digit_strokes(keep=1.0)
    return SVC(gamma=0.05, C=10).fit(_features(strokes), digits)


def _features(gray: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return [N, 64] averages of [N, H, W]."""
    rows, columns = _area_matrix(gray.shape[1]), _area_matrix(gray.shape[2])
    coarse = rows @ gray.astype(np.float64) @ columns.T
    return coarse[:, 1:-1, 1:-1].reshape(len(gray), -1)


def _area_matrix(size: int) -> npt.NDArray[np.float64]:
    """Return the matrix [10, size] of adaptive average pooling: cell i covers floor(i · size / 10) to ceil((i + 1) · size / 10)."""
    matrix = np.zeros((COARSE, size))
    for cell in range(COARSE):
        span = slice(cell * size // COARSE, -(-(cell + 1) * size // COARSE))
        matrix[cell, span] = 1 / (span.stop - span.start)
    return matrix


def _colors(pixels: npt.NDArray[np.float64], gray: npt.NDArray[np.float64]) -> list[str]:
    """Return the nearest colour by direction in RGB of the brightness-weighted mean [N, 3]."""
    mean = (pixels * gray[..., None]).sum(axis=(1, 2))
    names, known = list(COLORS), np.array(list(COLORS.values()))
    likeness = _unit(mean) @ _unit(known).T
    return [names[index] for index in likeness.argmax(axis=1)]


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
