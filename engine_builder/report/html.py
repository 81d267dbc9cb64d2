"""Renders the report of a build, and the comparison of several, as one self-contained HTML file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffusion_api.build_report import BuildReport, CandidateResult
from engine_builder.evaluation.budget import limits, within_budget
from engine_builder.report import frontier, words
from engine_builder.report.pictures import DIFFERENCE_GAIN, ReportPictures, is_small, picture_rows

TEMPLATES = Path(__file__).parent / "templates"

Row = dict[str, object]


def render_report(report: BuildReport, pictures: ReportPictures | None) -> str:
    """Return the report of one build as HTML.

    Args:
        report: `build.json`.
        pictures: What reference and engine drew; None where the engine drew nothing here.
    """
    rows = picture_rows(pictures) if pictures is not None else []
    budget = report.job.optimization.quality_budget
    calibration = frontier.calibration_chart(report.step_cache)
    sweep = frontier.sweep_chart(report.step_cache, budget.min_psnr)
    return _render(
        "report.html.j2",
        report=report,
        verdict=words.verdict(report),
        sizes=", ".join(shape.name.replace("x", "×") for shape in report.job.shapes),
        figures=_figures(report),
        limits=limits(report.quality, budget),
        rows=[{**vars(row), "psnr": words.decibels(row.psnr_db)} for row in rows],
        hidden=0 if pictures is None else len(pictures.prompts) - len(rows),
        small=pictures is not None and is_small(pictures),
        gain=DIFFERENCE_GAIN,
        frontier=_frontier(
            [_candidate_point(c, c.quality.psnr) for c in report.candidates if c.quality and c.quality.psnr], budget.min_psnr
        ),
        candidates=[_candidate_row(c) for c in sorted(report.candidates, key=lambda c: -c.expected_speedup)],
        calibration_chart=calibration.svg() if calibration else "",
        sweep_chart=sweep.svg() if sweep else "",
        stages=_stage_rows(report),
        duration=words.seconds((report.finished_at - report.started_at).total_seconds()),
        job=json.dumps(report.job.to_wire(), indent=2, ensure_ascii=False),
    )


def render_frontier(reports: Sequence[BuildReport], *, title: str = "Recipes compared") -> str:
    """Return one page that compares builds, of one model usually, fastest first.

    Args:
        reports: One a build.
        title: Heading of the page.
    """
    ordered = sorted(reports, key=_expected_speed, reverse=True)
    budgets = {report.job.optimization.quality_budget.min_psnr for report in ordered}
    points = [_report_point(report, report.quality.psnr) for report in ordered if report.quality.psnr is not None]
    held = sum(_is_inside(report) for report in ordered)
    return _render(
        "frontier.html.j2",
        title=title,
        models=" · ".join(sorted({report.job.model.uri for report in ordered})),
        summary=f"{len(ordered)} builds; {held} hold their quality budget.",
        frontier=_frontier(points, budgets.pop() if len(budgets) == 1 else None),
        rows=[_report_row(report) for report in ordered],
    )


def _render(template: str, **values: object) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704  # Our own file.
    page = environment.get_template(template)
    return page.render(style=style, decibels=words.decibels, mebibytes=words.mebibytes, **values)


def _figures(report: BuildReport) -> list[Row]:
    budget = report.job.optimization.quality_budget
    broken = within_budget(report.quality, budget)
    bound = "no PSNR limit" if budget.min_psnr is None else f"budget ≥ {budget.min_psnr:g} dB"
    if report.quality.worst_psnr is not None:
        bound = f"{bound}; the worst picture {words.decibels(report.quality.worst_psnr)}"
    figures: list[Row] = [
        {"name": "Quality (PSNR)", "value": words.decibels(report.quality.psnr), "detail": bound, "style": "bad" if broken else "good"}
    ]
    if report.comparison is not None:
        before, after = report.comparison.unoptimized, report.comparison.optimized
        detail = f"unoptimized {words.milliseconds(before.median_ms)}; 95% within {words.milliseconds(after.p95_ms)}"
        figures.append({"name": "Latency of a picture", "value": words.milliseconds(after.median_ms), "detail": detail, "style": ""})
        detail = f"than torch, eager; median of {after.repeats}{_place(report.comparison.measured_on)}"
        figures.append({"name": "Faster", "value": f"{report.comparison.speedup:.2f}×", "detail": detail, "style": ""})
    detail = f"unoptimized {words.mebibytes(report.unoptimized_mib)}. {words.size_meaning(report)}"
    figures.append(
        {"name": words.size_name(report).capitalize(), "value": words.mebibytes(report.optimized_mib), "detail": detail, "style": ""}
    )
    return figures


def _place(machine: str) -> str:
    return f" on {machine}" if machine else ""


def _frontier(points: Sequence[frontier.FrontierPoint], min_psnr: float | None) -> Markup | str:
    return frontier.frontier_chart(points, min_psnr).svg() if points else ""


def _candidate_point(candidate: CandidateResult, psnr: float) -> frontier.FrontierPoint:
    return frontier.FrontierPoint(
        label=candidate.label,
        speedup=candidate.expected_speedup,
        psnr_db=psnr,
        is_inside=candidate.within_budget,
        is_chosen=candidate.chosen,
        is_simulated=candidate.simulated,
    )


def _candidate_row(candidate: CandidateResult) -> Row:
    quality = candidate.quality
    return {
        "label": candidate.label,
        "speed": f"{candidate.expected_speedup:.2f}×",
        "psnr": words.psnr(quality),
        "ssim": words.share(quality.ssim if quality else None),
        "size": words.mebibytes(candidate.size_mib),
        "is_chosen": candidate.chosen,
        "verdict": words.candidate_verdict(candidate),
    }


def _stage_rows(report: BuildReport) -> list[Row]:
    longest = max((stage.seconds for stage in report.stages), default=0.0) or 1.0
    return [
        {
            "name": stage.name,
            "reused": stage.reused,
            "width": f"{100 * stage.seconds / longest:.1f}",
            "time": words.seconds(stage.seconds),
            "memory": words.mebibytes(stage.peak_memory_mib),
        }
        for stage in report.stages
    ]


def _report_point(report: BuildReport, psnr: float) -> frontier.FrontierPoint:
    return frontier.FrontierPoint(
        label=report.recipe.label,
        speedup=_expected_speed(report),
        psnr_db=psnr,
        is_inside=_is_inside(report),
        is_simulated=report.simulated,
    )


def _report_row(report: BuildReport) -> Row:
    comparison = report.comparison
    return {
        "label": report.recipe.label,
        "accelerator": report.job.accelerator.product,
        "speed": f"{_expected_speed(report):.2f}×",
        "psnr": words.psnr(report.quality),
        "ssim": words.share(report.quality.ssim),
        "flip": words.share(report.quality.flip),
        "latency": "–" if comparison is None else f"{words.milliseconds(comparison.optimized.median_ms)} ({comparison.speedup:.2f}×)",
        "size": words.mebibytes(report.optimized_mib),
        "measured_on": _measured_on(report),
        "is_inside": _is_inside(report),
    }


def _measured_on(report: BuildReport) -> str:
    place = "engine" if report.verified_on_engine else "quantized model in torch"
    return f"{place}, simulated" if report.simulated else place


def _is_inside(report: BuildReport) -> bool:
    return not within_budget(report.quality, report.job.optimization.quality_budget)


def _expected_speed(report: BuildReport) -> float:
    chosen = [candidate.expected_speedup for candidate in report.candidates if candidate.chosen]
    return chosen[0] if chosen else 1.0
