"""A small scatter chart as inline SVG: axes with round numbers, labels that do not overlap, colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDE = (1024.0, 400.0)
"""Width and height of a chart as wide as the page."""
HALF = (490.0, 300.0)
"""Of two side by side; letters are as large as in the wide one."""
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 28, 44
FONT_SIZE = 12
LETTER_WIDTH = 6.9
"""Mean, of the widest of the page's fonts."""
LABEL_HEIGHT = 14.0
POINT_RADIUS = 4.5

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Point:
    """One mark."""

    x: float
    y: float
    label: str = ""
    style: str = ""
    """CSS classes, for example `inside chosen`."""
    title: str = ""
    """What the pointer shows."""


@dataclass(frozen=True)
class Axis:
    """A scale."""

    title: str
    low: float
    high: float
    suffix: str = ""
    top_is_open: bool = False
    """True where values above the end are drawn at the end."""

    def ticks(self) -> list[float]:
        """Round numbers inside the scale, four to nine."""
        span = self.high - self.low
        step = next(s for s in _steps(span) if span / s <= 8)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 10) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Chart:
    """A scatter chart."""

    name: str
    """What a screen reader says."""
    x: Axis
    y: Axis
    points: Sequence[Point]
    curve: Sequence[tuple[float, float]] = ()
    """A line through these points."""
    limit: float | None = None
    """A dashed line at this height."""
    limit_label: str = ""
    cloud: Sequence[tuple[float, float]] = field(default=())
    """Faint marks without labels."""
    size: tuple[float, float] = WIDE
    """Width and height."""

    @property
    def area(self) -> Box:
        """Where points lie."""
        return LEFT, TOP, self.size[0] - RIGHT, self.size[1] - BOTTOM

    def svg(self) -> Markup:
        """Draw it."""
        parts = [*self._axes(), *self._limit(), *self._cloud(), *self._curve(), *self._points()]
        head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(*(f"{side:g}" for side in self.size), self.name)
        return head + Markup("").join(parts) + Markup("</svg>")

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = (min(max(x, self.x.low), self.x.high) - self.x.low) / (self.x.high - self.x.low)
        up = (min(max(y, self.y.low), self.y.high) - self.y.low) / (self.y.high - self.y.low)
        left, top, right, bottom = self.area
        return left + across * (right - left), bottom - up * (bottom - top)

    def _axes(self) -> list[Markup]:
        left, top, right, bottom = self.area
        parts = []
        for tick in self.y.ticks():
            _, y = self._at(self.x.low, tick)
            words = ("≥ " if self.y.top_is_open and tick == self.y.high else "") + f"{tick:g}{self.y.suffix}"
            parts.append(_line("grid", left, y, right, y))
            parts.append(_text("tick", left - 8, y + 4, words, "end"))
        for tick in self.x.ticks():
            x, _ = self._at(tick, self.y.low)
            parts.append(_line("grid", x, top, x, bottom))
            parts.append(_text("tick", x, bottom + 17, f"{tick:g}{self.x.suffix}", "middle"))
        parts.append(_text("axis", right, bottom + 36, self.x.title, "end"))
        parts.append(_text("axis", 0, top - 15, self.y.title, "start"))
        return parts

    def _limit(self) -> list[Markup]:
        if self.limit is None:
            return []
        _, y = self._at(self.x.low, self.limit)
        return [_line("limit", LEFT, y, self.area[2], y)]

    def _cloud(self) -> list[Markup]:
        marks = (self._at(x, y) for x, y in self.cloud)
        return [Markup('<circle class="cloud" cx="{}" cy="{}" r="2"/>').format(_n(x), _n(y)) for x, y in marks]

    def _curve(self) -> list[Markup]:
        if not self.curve:
            return []
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in (self._at(*point) for point in self.curve))
        return [Markup('<polyline class="curve" points="{}"/>').format(path)]

    def _points(self) -> list[Markup]:
        centres = [self._at(point.x, point.y) for point in self.points]
        labels = [point.label for point in self.points]
        fixed: list[Box] = []
        parts: list[Markup] = []
        if self.limit is not None and self.limit_label:
            _, y = self._at(self.x.low, self.limit)
            fixed = [(LEFT, y - LABEL_HEIGHT - 3, LEFT + 8 + len(self.limit_label) * LETTER_WIDTH, y + 3)]
            parts.append(_text("limit-label", LEFT + 6, y - 6, self.limit_label, "start"))
        for point, (x, y), box in zip(self.points, centres, place_labels(centres, labels, fixed, self.area), strict=True):
            if box is not None:
                parts += _label(point, x, y, box)
            mark = Markup('<circle class="point {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
            parts.append(mark.format(point.style, _n(x), _n(y), POINT_RADIUS, point.title or point.label))
        return parts


def scale(values: Sequence[float], *, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """Return the ends of an axis that holds the values, widened to round numbers."""
    least = min(values) if low is None else low
    most = max(values) if high is None else high
    span = (most - least) or abs(most) or 1.0
    step = next(s for s in _steps(span) if span / s <= 8)
    start = least if low is not None else math.floor((least - 0.04 * span) / step) * step
    end = most if high is not None else math.ceil((most + 0.04 * span) / step) * step
    return start, end


def place_labels(centres: Sequence[tuple[float, float]], labels: Sequence[str], fixed: Sequence[Box], area: Box) -> list[Box | None]:
    """Place each label beside its point where it covers nothing placed before, no point and no edge; None for an empty label.

    Greedy: right, left, above, below, then ever farther; where all is taken, the place of least overlap.
    """
    taken = [*fixed, *((x - POINT_RADIUS - 2, y - POINT_RADIUS - 2, x + POINT_RADIUS + 2, y + POINT_RADIUS + 2) for x, y in centres)]
    placed: list[Box | None] = []
    for (x, y), label in zip(centres, labels, strict=True):
        if not label:
            placed.append(None)
            continue
        box = min(_places(x, y, len(label) * LETTER_WIDTH, area), key=lambda place: _overlap(place, taken))
        taken.append(box)
        placed.append(box)
    return placed


def _places(x: float, y: float, width: float, area: Box) -> list[Box]:
    near, half = POINT_RADIUS + 5, LABEL_HEIGHT / 2
    boxes = []
    for distance in range(0, 150, 8):
        for shift in sorted({-distance, distance}):
            for left in (x + near, x - near - width, x - width / 2):
                if left == x - width / 2 and abs(shift) < LABEL_HEIGHT:
                    continue
                boxes.append((left, y + shift - half, left + width, y + shift + half))
    inside = [b for b in boxes if b[0] >= area[0] + 2 and b[2] <= area[2] and b[1] >= area[1] - 8 and b[3] <= area[3] - 2]
    return inside or boxes


def _overlap(box: Box, taken: Sequence[Box]) -> float:
    areas = (max(0.0, min(box[2], o[2]) - max(box[0], o[0])) * max(0.0, min(box[3], o[3]) - max(box[1], o[1])) for o in taken)
    return sum(areas)


def _label(point: Point, x: float, y: float, box: Box) -> list[Markup]:
    middle = (box[1] + box[3]) / 2
    parts = []
    if abs(middle - y) > LABEL_HEIGHT:
        end = min(max(x, box[0]), box[2])
        parts.append(_line("leader", x, y, end, box[1] if middle > y else box[3]))
    # Anchored at the end beside the point, so that a font of another width keeps its distance.
    start, anchor = (box[0], "start") if box[0] >= x else (box[2], "end") if box[2] <= x else ((box[0] + box[2]) / 2, "middle")
    parts.append(_text(f"label {point.style}", start, middle + 4, point.label, anchor))
    return parts


def _steps(span: float) -> list[float]:
    power = math.floor(math.log10(span)) - 1
    return [factor * 10.0 ** (power + more) for more in range(4) for factor in (1, 2, 5)]


def _n(value: float) -> str:
    return f"{value:.1f}"


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(style, _n(x1), _n(y1), _n(x2), _n(y2))


def _text(style: str, x: float, y: float, words: str, anchor: str) -> Markup:
    text = Markup('<text class="{}" x="{}" y="{}" text-anchor="{}" font-size="{}">{}</text>')
    return text.format(style, _n(x), _n(y), anchor, FONT_SIZE, escape(words))
