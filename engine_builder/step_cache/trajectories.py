"""What calibration trajectories tell about the step cache, gathered while they are drawn and small enough for any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine_builder.evaluation.reference import Generator, draw
from engine_builder.evaluation.samples import Sample
from engine_runtime.arrays import to_numpy
from engine_runtime.pieces import Array
from engine_runtime.requests import BodyEvent
from engine_runtime.step_cache import relative_change

MAX_RESIDUAL_VALUES = 65_536


@dataclass(frozen=True)
class Trajectories:
    """Measurements over uncached generations."""

    pairs: NDArray[np.float64]
    """[N, 2]: relative L1 change of the indicator and of the residual between adjacent steps, of each sample."""
    drift: NDArray[np.float64]
    """[steps, steps]: ‖residual of step i − residual of step j‖₂ / ‖residual of step i‖₂, mean over the samples."""


class TrajectoryRecorder:
    """Watches a generation without step cache (`on_body`); holds one batch's residuals at a time, thinned to 65,536 values each."""

    def __init__(self) -> None:
        self._indicators: list[NDArray[np.generic]] = []
        self._residuals: list[NDArray[np.float32]] = []
        self._pairs: list[NDArray[np.float64]] = []
        self._drifts: list[NDArray[np.float64]] = []
        self._weights: list[int] = []

    def __call__(self, event: BodyEvent) -> None:
        """Take one evaluation of the transformer blocks."""
        if event.step == 0:
            self._finish_batch()
        residual = np.concatenate([_thinned(array) for array in event.residuals.values()], axis=1)
        indicator = to_numpy(event.indicator)
        if self._residuals:
            changes = (relative_change(indicator, self._indicators[-1]), relative_change(residual, self._residuals[-1]))
            self._pairs.append(np.stack(changes, axis=1))
        self._indicators = [indicator]
        self._residuals.append(residual)

    def result(self) -> Trajectories:
        """Return what was gathered.

        Raises:
            ValueError: Nothing was.
        """
        self._finish_batch()
        if not self._drifts:
            raise ValueError("no trajectory was recorded; generate with on_body, with the transformer in three pieces")
        pairs = np.concatenate(self._pairs) if self._pairs else np.empty((0, 2))
        return Trajectories(pairs, np.average(self._drifts, axis=0, weights=self._weights))

    def _finish_batch(self) -> None:
        if self._residuals:
            residuals = np.stack(self._residuals)
            norms = np.maximum(np.linalg.norm(residuals, axis=2), np.finfo(np.float32).tiny)
            distances = [np.linalg.norm(residuals - other, axis=2) / norms for other in residuals]
            self._drifts.append(np.stack(distances, axis=1).mean(axis=2))
            self._weights.append(residuals.shape[1])
        self._indicators, self._residuals = [], []


def record_trajectories(generator: Generator, samples: Sequence[Sample], *, size: str | None = None, batch_size: int = 8) -> Trajectories:
    """Draw the calibration samples without step cache and gather what it is fitted on."""
    recorder = TrajectoryRecorder()
    draw(generator, samples, size=size, batch_size=batch_size, on_body=recorder)
    return recorder.result()


def _thinned(array: Array) -> NDArray[np.float32]:
    """Flatten each row and keep evenly spaced values: norms and their ratios need no more, and a GPU copies no more to the host."""
    rows = array.reshape(array.shape[0], -1)
    return to_numpy(rows[:, :: max(1, rows.shape[1] // MAX_RESIDUAL_VALUES)]).astype(np.float32)
