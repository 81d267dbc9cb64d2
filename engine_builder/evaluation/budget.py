"""The quality budget as decisions and as words: which limits a measurement breaks, and the table a failed build prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diffusion_api.build_report import CandidateResult
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import QualityBudget

WORST_PICTURE_DB = 6.0
"""How far the worst picture's PSNR may lie below the budget's, which limits the mean: at 6 dB a pixel is off by twice as much."""


@dataclass(frozen=True)
class Limit:
    """One limit of a budget beside what was measured."""

    metric: str
    """The metric's name for people, for example `PSNR`."""
    field: str
    """The budget's field on the wire, for example `minPSNR`."""
    bound: float
    is_minimum: bool
    measured: float | None
    unit: str
    worst: float | None = None
    """Of the worst picture alone, where that is limited too; None also where it was not measured."""

    @property
    def is_held(self) -> bool:
        """False also for what was not measured and for NaN: a limit is never passed by default."""
        if self.measured is None:
            return False
        return (self.measured >= self.bound if self.is_minimum else self.measured <= self.bound) and self.is_worst_held

    @property
    def is_worst_held(self) -> bool:
        """Whether the worst picture is near enough to the bound."""
        return self.worst is None or self.worst >= self.bound - WORST_PICTURE_DB

    @property
    def measured_text(self) -> str:
        """`41.2 dB`, `41.2 dB, worst 36.0 dB`, or `not measured`."""
        if self.measured is None:
            return "not measured"
        worst = "" if self.worst is None else f", worst {_figure(self.worst, self.unit)}{self.unit}"
        return f"{_figure(self.measured, self.unit)}{self.unit}{worst}"

    @property
    def bound_text(self) -> str:
        """`≥ 35 dB`."""
        return f"{'≥' if self.is_minimum else '≤'} {self.bound:g}{self.unit}"


def limits(quality: MeasuredQuality, budget: QualityBudget) -> list[Limit]:
    """Return the limits that the budget sets, in its order."""
    every = (
        ("PSNR", "minPSNR", budget.min_psnr, True, quality.psnr, " dB"),
        ("SSIM", "minSSIM", budget.min_ssim, True, quality.ssim, ""),
        ("FLIP", "maxFLIP", budget.max_flip, False, quality.flip, ""),
        ("LPIPS", "maxLPIPS", budget.max_lpips, False, quality.lpips, ""),
        ("CLIP score's fall", "maxClipDrop", budget.max_clip_drop, False, quality.clip_drop, ""),
    )
    found = [Limit(name, field, bound, low, value, unit) for name, field, bound, low, value, unit in every if bound is not None]
    return [replace(limit, worst=quality.worst_psnr) if limit.field == "minPSNR" else limit for limit in found]


def within_budget(quality: MeasuredQuality, budget: QualityBudget) -> list[str]:
    """Return a sentence for each limit that is broken or was not measured; empty: the budget is held."""
    return [_sentence(limit) for limit in limits(quality, budget) if not limit.is_held]


def _sentence(limit: Limit) -> str:
    field = f"(qualityBudget.{limit.field})"
    if limit.worst is None or limit.is_worst_held:
        return f"{limit.metric} is {limit.measured_text}, the budget asks for {limit.bound_text} {field}"
    worst, mean = replace(limit, measured=limit.worst, worst=None).measured_text, replace(limit, worst=None).measured_text
    allowed = f"more than {WORST_PICTURE_DB:g}{limit.unit} under the budget's {limit.bound:g}{limit.unit}"
    return f"the worst picture's {limit.metric} is {worst}, {allowed} {field}; the mean is {mean}"


def worst_quality(found: Sequence[MeasuredQuality]) -> MeasuredQuality:
    """Return each metric's worst of several output sizes."""

    def worst(name: str, choose: Callable[[list[float]], float]) -> float | None:
        measured = [value for quality in found if (value := getattr(quality, name)) is not None]
        return choose(measured) if measured else None

    return MeasuredQuality(
        psnr=worst("psnr", min),
        worst_psnr=worst("worst_psnr", min),
        ssim=worst("ssim", min),
        flip=worst("flip", max),
        lpips=worst("lpips", max),
        clip_drop=worst("clip_drop", max),
    )


def quality_summary(quality: MeasuredQuality, budget: QualityBudget) -> str:
    """Return quality against budget in a few words: `41.2 dB (≥ 35 dB), FLIP 0.031 (≤ 0.08)`."""
    named = limits(quality, budget)
    if not named:
        worst = "" if quality.worst_psnr is None else f", worst {quality.worst_psnr:.1f} dB"
        return "no budget" if quality.psnr is None else f"{quality.psnr:.1f} dB{worst} (no budget)"
    words = (f"{'' if limit.metric == 'PSNR' else limit.metric + ' '}{limit.measured_text} ({limit.bound_text})" for limit in named)
    return ", ".join(words)


def candidate_table(candidates: Sequence[CandidateResult], budget: QualityBudget) -> str:
    """Return what each recipe reached as a text table, for the message of a build that found none inside the budget."""
    fields = limits(MeasuredQuality(), budget)
    header = ["recipe", "expected speed", *(f"{limit.metric} ({limit.bound_text})" for limit in fields), "note"]
    rows = []
    for candidate in candidates:
        reached = limits(candidate.quality or MeasuredQuality(), budget)
        cells = [limit.measured_text + ("" if limit.is_held or limit.measured is None else " ✗") for limit in reached]
        rows.append([candidate.label, f"{candidate.expected_speedup:.2f}×", *cells, candidate.note])
    return text_table(header, rows)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, two spaces apart."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["─" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _figure(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit else f"{value:.3f}"
