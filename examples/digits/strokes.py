"""Handwritten digits as crisp white strokes of 64×64 pixels: the training data, and what the judge learns from. Needs no torch.

Source: scikit-learn's `load_digits`, 1,797 pictures of 8×8 pixels (UCI "Optical Recognition of Handwritten Digits", CC BY 4.0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.svm import SVC

from examples.digits.vocabulary import PICTURE_SIZE

MARGIN = 1
"""Empty source pixels around each digit."""
CUBIC = -0.75
"""Keys' parameter `a` of the bicubic kernel, as in torch and OpenCV."""


def digit_strokes(keep: float = 0.6) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the `keep` share of each digit that a classifier tells apart best.

    Args:
        keep: Share in (0, 1]; the rest is hard to read for people too.

    Returns:
        Strokes [N, 64, 64] in [0, 1], and the digit that each shows [N]; digits ascending.
    """
    data = load_digits()
    chosen = _clearest(data.data, data.target, keep) if keep < 1 else np.argsort(data.target, kind="stable")
    pixels = np.pad(data.images[chosen] / 16, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    enlarge = bicubic_matrix(pixels.shape[-1], PICTURE_SIZE)
    soft = np.clip(enlarge @ pixels @ enlarge.T, 0, 1)
    sharp = np.clip((soft - 0.3) / 0.35, 0, 1)
    strokes: npt.NDArray[np.float32] = (sharp * sharp * (3 - 2 * sharp)).astype(np.float32)  # Smoothstep.
    return strokes, data.target[chosen].astype(np.int64)


def bicubic_matrix(source: int, target: int) -> npt.NDArray[np.float64]:
    """Return the matrix [target, source] that enlarges a row of pixels; pixel centres at half integers, borders repeated.

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", equation 4.
    """
    matrix = np.zeros((target, source))
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(centres).astype(int)
    for offset in (-1, 0, 1, 2):
        column = np.clip(first + offset, 0, source - 1)
        np.add.at(matrix, (np.arange(target), column), _cubic(np.abs(centres - first - offset)))
    return matrix


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)


def _clearest(pixels: npt.NDArray[np.float64], digits: npt.NDArray[np.int64], keep: float) -> npt.NDArray[np.int64]:
    """Return indices by digit: of each, those whose own score is farthest above the next best."""
    classifier = SVC(gamma=0.001, C=10, decision_function_shape="ovr")
    scores = cross_val_predict(classifier, pixels, digits, cv=5, method="decision_function")
    rows = np.arange(len(digits))
    own = scores[rows, digits]
    scores[rows, digits] = -np.inf
    gap = own - scores.max(1)
    per_digit = (np.flatnonzero(digits == digit) for digit in range(10))
    return np.concatenate([np.sort(found[np.argsort(-gap[found])][: int(keep * len(found))]) for found in per_digit])
