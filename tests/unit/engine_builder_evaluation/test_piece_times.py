from __future__ import annotations

from engine_builder.evaluation.piece_times import PieceTimes


def test_the_share_of_a_piece_is_its_part_of_the_time_of_all() -> None:
    now = [0.0]

    def takes(seconds: float):
        def run(inputs):
            now[0] += seconds
            return inputs

        return run

    times = PieceTimes({"body": takes(3), "head": takes(1)}, clock=lambda: now[0])
    assert times.share("body") == 0
    assert times.runners["body"]({"x": 1}) == {"x": 1}
    times.runners["head"]({})
    assert times.share("body") == 0.75
    times.reset()
    times.runners["head"]({})
    assert times.share("head") == 1


def test_work_that_a_device_still_does_counts_for_the_piece_that_asked_for_it() -> None:
    now, pending = [0.0], [0.0]

    def asks_for(seconds: float):
        def run(inputs):
            pending[0] += seconds
            return inputs

        return run

    def synchronize() -> None:
        now[0] += pending[0]
        pending[0] = 0.0

    times = PieceTimes({"body": asks_for(3), "head": asks_for(1)}, clock=lambda: now[0], synchronize=synchronize)
    pending[0] = 100.0  # Of whoever ran before.
    times.runners["body"]({})
    times.runners["head"]({})
    assert times.seconds == {"body": 3, "head": 1}
