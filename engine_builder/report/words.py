"""Numbers as people read them, and the sentence that says why a recipe was chosen."""

from __future__ import annotations

from diffusion_api.build_report import BuildReport, CandidateResult
from diffusion_api.deployment import MeasuredQuality

IDENTICAL_DB = 99.95
MIB_PER_GIB = 1024.0


def decibels(value: float | None) -> str:
    """`41.2 dB`, `identical` or `–`."""
    if value is None:
        return "–"
    return "identical" if value >= IDENTICAL_DB else f"{value:.1f} dB"


def psnr(quality: MeasuredQuality | None) -> str:
    """`41.2 dB, worst 36.0 dB` with the worst picture's; `identical` or `–`."""
    if quality is None or quality.worst_psnr is None or quality.worst_psnr >= IDENTICAL_DB:
        return decibels(quality.psnr if quality else None)
    return f"{decibels(quality.psnr)}, worst {decibels(quality.worst_psnr)}"


def share(value: float | None) -> str:
    """A quality figure between 0 and 1, or `–`."""
    return "–" if value is None else f"{value:.3f}"


def mebibytes(value: float | None) -> str:
    """`4.3 MiB`, `7.4 GiB` or `–`."""
    if value is None:
        return "–"
    if value >= MIB_PER_GIB:
        return f"{value / MIB_PER_GIB:.1f} GiB"
    return f"{value:.0f} MiB" if value >= 100 else f"{value:.1f} MiB"


def milliseconds(value: float) -> str:
    """`84 ms`, `3.2 ms` or `2.31 s`."""
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """`0.4 s`, `42 s` or `3 min 05 s`."""
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size_name(report: BuildReport) -> str:
    """Name what is compared: `weights`, or `size` where an engine's files hold kernels besides."""
    return "weights" if report.job.accelerator.is_cpu else "size"


def size_meaning(report: BuildReport) -> str:
    """Say what is compared, in a sentence."""
    if report.job.accelerator.is_cpu:
        return "Weights: of the checkpoint's files, and of the engine's pieces."
    return "Size: the checkpoint's weights, and the engine's plans, which hold weights and kernels."


def verdict(report: BuildReport) -> str:
    """Say what was chosen and why, in two sentences."""
    return f"{_choice(report)} {_speed(report)}"


def candidate_verdict(candidate: CandidateResult) -> str:
    """Say what became of a recipe."""
    words = []
    if candidate.chosen:
        words.append("chosen")
    elif candidate.quality is None:
        words.append("not scored")
    else:
        words.append("inside the budget" if candidate.within_budget else "outside the budget")
    if candidate.simulated:
        words.append("simulated")
    return ", ".join(words) + (f": {candidate.note}" if candidate.note else "")


def _choice(report: BuildReport) -> str:
    scored = [candidate for candidate in report.candidates if candidate.quality is not None]
    inside = sum(candidate.within_budget for candidate in scored)
    if len(report.candidates) <= 1:
        return "The job names this recipe."
    return (
        f"The fastest by expectation of {inside} recipes inside the quality budget; {len(scored)} of {len(report.candidates)} were scored."
    )


def _speed(report: BuildReport) -> str:
    if report.comparison is None:
        return "Its speed was not measured: the engine cannot run on the machine that built it."
    speedup = report.comparison.speedup
    if speedup >= 1:
        return f"A picture takes {speedup:.1f} times less time than with the unoptimized model in torch, measured in the same run."
    return f"A picture takes {1 / speedup:.1f} times as long as with the unoptimized model in torch, measured in the same run."
