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
