"""Speed against quality: the chart that shows what was weighed against what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_api.build_report import CacheCalibration
from engine_builder.report.chart import HALF, Axis, Chart, Point, scale

HIGHEST_PSNR_DB = 60.0
"""Above this pictures are equal to the eye; 100 dB (identical) would press the rest together."""


@dataclass(frozen=True)
class FrontierPoint:
    """One recipe."""

    label: str
    speedup: float
    psnr_db: float
    is_inside: bool
    is_chosen: bool = False
    is_simulated: bool = False


def short_label(label: str) -> str:
    """Leave out of a recipe's label what most recipes share."""
    return label.removesuffix(", no step cache").replace(" + BF16", "").replace(" + FP32", "")


def frontier_chart(points: Sequence[FrontierPoint], min_psnr: float | None) -> Chart:
    """Return the chart of expected speed against PSNR."""
    heights = [min(point.psnr_db, HIGHEST_PSNR_DB) for point in points] + ([] if min_psnr is None else [min_psnr])
    is_open = any(point.psnr_db > HIGHEST_PSNR_DB for point in points)
    low, high = scale(heights, high=HIGHEST_PSNR_DB if is_open else None)
    left, right = scale([point.speedup for point in points] + [1.0])
    return Chart(
        name="Expected speed and PSNR of each recipe, with the budget as a line",
        x=Axis("expected speed, × the unquantized engine →", left, right, "×"),
        y=Axis("PSNR, dB ↑", low, high, top_is_open=is_open),
        points=[_mark(point) for point in sorted(points, key=lambda point: not point.is_chosen)],
        limit=min_psnr,
        limit_label="" if min_psnr is None else f"budget ≥ {min_psnr:g} dB",
    )


def calibration_chart(calibration: CacheCalibration) -> Chart | None:
    """Return the fitted pairs with their curve; None where no table was fitted."""
    table = calibration.table
    if table is None:
        return None
    xs, ys = zip(*calibration.pairs, *zip(table.x, table.y, strict=True), strict=True)
    return Chart(
        name="Change of the residual by change of the indicator between two steps, and the table fitted to it",
        x=Axis("relative change of the indicator →", *scale(xs, low=0.0)),
        y=Axis("relative change of the residual ↑", *scale(ys, low=0.0)),
        points=[],
        cloud=calibration.pairs,
        curve=list(zip(table.x, table.y, strict=True)),
        size=HALF,
    )


def sweep_chart(calibration: CacheCalibration, min_psnr: float | None) -> Chart | None:
    """Return what leaving out steps costs, thresholds and masks in one chart; None where fewer than two were tried."""
    thresholds = [Point(skip * 100, psnr, style="inside", title=f"threshold {t:g}: {psnr:.1f} dB") for t, skip, psnr in calibration.sweep]
    masks = [Point(skip * 100, psnr, style="mask", title=f"mask {mask}: {psnr:.1f} dB") for mask, skip, psnr in calibration.masks]
    points = [*thresholds, *masks]
    if len(points) < 2:
        return None
    heights = [min(point.y, HIGHEST_PSNR_DB) for point in points] + ([] if min_psnr is None else [min_psnr])
    is_open = any(point.y > HIGHEST_PSNR_DB for point in points)
    return Chart(
        name="Share of steps left out and PSNR of each threshold and mask that was tried",
        x=Axis("steps left out →", 0.0, 100.0, "%"),
        y=Axis("PSNR, dB ↑", *scale(heights, high=HIGHEST_PSNR_DB if is_open else None), top_is_open=is_open),
        points=points,
        size=HALF,
        limit=min_psnr,
        limit_label="" if min_psnr is None else f"budget ≥ {min_psnr:g} dB",
    )


def _mark(point: FrontierPoint) -> Point:
    words = ["inside" if point.is_inside else "outside"]
    words += ["chosen"] if point.is_chosen else []
    words += ["simulated"] if point.is_simulated else []
    title = f"{point.label}: {point.speedup:.2f}×, {point.psnr_db:.1f} dB"
    return Point(point.speedup, point.psnr_db, short_label(point.label), " ".join(words), title)
