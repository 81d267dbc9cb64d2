from __future__ import annotations

import numpy as np
import pytest

from engine_builder.step_cache.trajectories import TrajectoryRecorder
from engine_runtime.requests import BodyEvent


def event(step: int, indicator, residual) -> BodyEvent:
    indicator, residual = np.asarray(indicator, np.float32), np.asarray(residual, np.float32)
    return BodyEvent(step, tuple(range(len(indicator))), indicator, {"image": residual})


def test_pairs_are_relative_changes_between_adjacent_steps_of_each_sample() -> None:
    record = TrajectoryRecorder()
    record(event(0, [[1, 1], [2, 2]], [[4], [4]]))
    record(event(1, [[1, 2], [2, 2]], [[5], [2]]))
    np.testing.assert_allclose(record.result().pairs, [[0.5, 0.25], [0, 0.5]])


def test_the_first_step_of_the_next_batch_is_not_paired_with_the_last_of_this() -> None:
    record = TrajectoryRecorder()
    for batch in range(3):
        for step in range(4):
            record(event(step, [[batch + step + 1.0]], [[1.0 + step]]))
    assert len(record.result().pairs) == 3 * 3


def test_drift_is_the_distance_of_two_steps_residuals_relative_to_the_row() -> None:
    record = TrajectoryRecorder()
    record(event(0, [[1]], [[3, 4]]))
    record(event(1, [[1]], [[6, 8]]))
    np.testing.assert_allclose(record.result().drift, [[0, 1], [0.5, 0]])


def test_drift_is_the_mean_over_all_samples_of_all_batches() -> None:
    record = TrajectoryRecorder()
    record(event(0, [[1], [1]], [[1], [1]]))
    record(event(1, [[1], [1]], [[1], [1]]))
    record(event(0, [[1]], [[1]]))
    record(event(1, [[1]], [[4]]))
    np.testing.assert_allclose(record.result().drift, [[0, 1], [0.25, 0]])


def test_nothing_recorded_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trajectory"):
        TrajectoryRecorder().result()
