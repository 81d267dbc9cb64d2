from __future__ import annotations

from itertools import combinations

import pytest

from engine_builder.report.chart import Axis, Chart, Point, place_labels, scale
from engine_builder.report.frontier import FrontierPoint, frontier_chart, short_label

AREA = (44, 28, 744, 356)


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_labels_of_a_crowd_do_not_overlap() -> None:
    centres = [(300 + 6 * (i % 4), 200 + 5 * (i // 4)) for i in range(12)]
    boxes = place_labels(centres, [f"INT8 SmoothQuant {i}" for i in range(12)], [], AREA)
    assert not [pair for pair in combinations([box for box in boxes if box], 2) if overlap(*pair)]


def test_labels_stay_inside_the_chart() -> None:
    (box,) = place_labels([(740, 30)], ["a label near the right edge"], [], AREA)
    assert box is not None
    assert box[2] <= 744


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [31.2, 60.0], [0.001, 0.002], [1, 2.4]])
def test_a_scale_holds_its_values_with_a_handful_of_round_ticks(values: list[float]) -> None:
    low, high = scale(values)
    assert low <= min(values)
    assert high >= max(values)
    assert 3 <= len(Axis("", low, high).ticks()) <= 12


def test_identical_pictures_do_not_press_the_rest_together() -> None:
    chart = frontier_chart([FrontierPoint("a", 1.0, 100.0, True), FrontierPoint("b", 2.0, 35.0, False)], 38)
    assert chart.y.high == 60
    assert "≥ 60" in chart.svg()


def test_points_say_what_they_are() -> None:
    svg = frontier_chart(
        [FrontierPoint("a", 1.0, 40.0, True, is_chosen=True), FrontierPoint("b", 2.0, 30.0, False, is_simulated=True)], 38
    ).svg()
    assert 'class="point inside chosen"' in svg
    assert 'class="point outside simulated"' in svg
    assert "budget ≥ 38 dB" in svg


def test_a_chart_has_a_name_for_screen_readers() -> None:
    svg = Chart("What <b>it</b> shows", Axis("x", 0, 1), Axis("y", 0, 1), [Point(0.5, 0.5)]).svg()
    assert 'aria-label="What &lt;b&gt;it&lt;/b&gt; shows"' in svg


def test_labels_leave_out_what_most_recipes_share() -> None:
    assert short_label("INT8 SmoothQuant + BF16, no step cache") == "INT8 SmoothQuant"
    assert short_label("BF16, no step cache") == "BF16"
