"""The `engine` stage: model repository, `build.json` and `report.html`, published under the engine key in one rename."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from diffusion_api.build_report import BuildReport, CacheCalibration, CandidateResult
from diffusion_api.engine_manifest import EngineManifest
from engine_builder.build import ENGINE_STAGE, REPORT_FILE
from engine_builder.evaluation.metrics import Pictures
from engine_builder.report.html import render_report
from engine_builder.report.pictures import ReportPictures
from engine_builder.store import require_free_space
from engine_builder.store.checksums import measure
from engine_builder.workflow.compilation import MIB, CompiledEngine
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.reference_stage import References
from engine_builder.workflow.search import Choice, Scored, report_of
from engine_builder.workflow.simulation import tokenizer_file
from engine_builder.workflow.verification import Verified, load_pictures
from engine_runtime.triton.repository import REPOSITORY_FOLDER, write_model_repository

PERMISSIVE_LICENCES = ("apache", "mit", "bsd", "isc")
VERSIONED = (
    "diffusion-operator",
    "torch",
    "diffusers",
    "transformers",
    "nvidia-modelopt",
    "onnx",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
)


@dataclass(frozen=True)
class Outcome:
    """All that a finished search and build leave."""

    references: References
    scored: Sequence[Scored]
    choice: Choice
    compiled: CompiledEngine
    manifest: EngineManifest
    verified: Verified
    refused: Sequence[tuple[Choice, Verified]]
    """Recipes that were compiled before and did not hold what the search promised."""


def publish(context: BuildContext, outcome: Outcome, started_at: datetime) -> Path:
    """Write the package and give it the engine key's name; a half-written one is never seen."""
    store, key, progress = context.runner.store, context.plan.engine_key, context.runner.progress
    progress.stage_started(ENGINE_STAGE)
    begin = time.perf_counter()
    with store.building(ENGINE_STAGE, key) as folder:
        require_free_space(folder, round(outcome.compiled.size_mib * MIB))
        tokenizer = tokenizer_file(context.checkpoint.folder).read_text(encoding="utf-8")
        constants = {name: np.asarray(tensor.numpy()) for name, tensor in context.family.constants(context.manifest).items()}
        write_model_repository(
            folder / REPOSITORY_FOLDER,
            manifest=outcome.manifest,
            compiled=outcome.compiled.folders,
            constants=constants,
            tokenizer_json=tokenizer,
        )
        report = build_report(context, outcome, started_at)
        pictures = _pictures(outcome)
        (folder / "report.html").write_text(render_report(report, pictures), encoding="utf-8")
        sums = {path: entry.sha256 for path, entry in measure(folder).items()}
        report = report.model_copy(update={"checksums": sums})
        (folder / REPORT_FILE).write_text(json.dumps(report.to_wire(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    progress.stage_finished(ENGINE_STAGE, time.perf_counter() - begin, reused=False)
    return store.path(ENGINE_STAGE, key)


def build_report(context: BuildContext, outcome: Outcome, started_at: datetime) -> BuildReport:
    """Put together `build.json`, without checksums."""
    verified = outcome.verified
    return BuildReport(
        engine_key=context.plan.engine_key,
        job=context.job,
        resolved_revision=context.checkpoint.revision,
        family=context.family.name,
        recipe=outcome.choice.recipe,
        simulated=outcome.choice.scored.candidate.simulated,
        verified_on_engine=verified.on_engine,
        quality=verified.quality,
        rerun_psnr=min(reference.rerun_psnr for reference in outcome.references.by_size),
        comparison=verified.comparison,
        unoptimized_mib=context.checkpoint.size_mib,
        optimized_mib=outcome.compiled.size_mib,
        candidates=tuple(_candidates(outcome)),
        step_cache=_calibration(outcome),
        pieces=outcome.compiled.reports,
        stages=tuple(context.runner.timings),
        versions=versions(),
        warnings=tuple(_warnings(context, outcome)),
        started_at=started_at,
        finished_at=datetime.now(UTC),
    )


def versions() -> dict[str, str]:
    """Return the versions of what decides an engine, as far as it is installed."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # An optional compiler that this machine does not have.
    return found


def _calibration(outcome: Outcome) -> CacheCalibration:
    """Add to what the search expected of a step cache what it gains on the engine."""
    calibration, comparison = outcome.choice.calibration, outcome.verified.comparison
    if comparison is None or comparison.step_cache_gain is None:
        return calibration
    measured = f"on the engine it saves {comparison.step_cache_gain:.0%}, measured"
    return calibration.model_copy(update={"decision": f"{calibration.decision}; {measured}"})


def _candidates(outcome: Outcome) -> list[CandidateResult]:
    notes: dict[int, str] = {}
    for choice, verified in outcome.refused:
        words = f"compiled, {choice.step_cache.label}: {'; '.join(verified.objections)}"
        notes[id(choice.scored)] = "; ".join(filter(None, (notes.get(id(choice.scored)), words)))
    return [report_of(each, chosen=each is outcome.choice.scored, note=notes.get(id(each), "")) for each in outcome.scored]


def _warnings(context: BuildContext, outcome: Outcome) -> list[str]:
    found = list(outcome.compiled.warnings)
    if context.checkpoint.licence and not context.checkpoint.licence.lower().startswith(PERMISSIVE_LICENCES):
        found.append(f"the checkpoint's licence is {context.checkpoint.licence}; check that it allows this use")
    unmeasured = [report.name for report in outcome.compiled.reports if report.relative_error is None]
    if unmeasured:
        found.append(
            f"no runtime on the building machine can run the exported {', '.join(unmeasured)}, so their parity with torch is unmeasured"
        )
    if not outcome.verified.on_engine and context.placement.dtype is not torch.bfloat16:
        found.append("quality was measured in torch in FP32, while the engine computes what is not quantized in BF16")
    if outcome.verified.comparison is not None and not outcome.verified.comparison.in_turns:
        found.append("engine and unoptimized model do not fit into the memory together, so they were timed one after the other")
    if context.placement.reason:
        found.append(f"the reference that quality is measured against was {context.placement.reason}")
    return found


def _pictures(outcome: Outcome) -> ReportPictures:
    reference = outcome.references.default
    drawn: Pictures = load_pictures(outcome.verified.pictures, len(reference.samples))
    return ReportPictures(
        prompts=reference.prompts,
        seeds=tuple(sample.seed for sample in reference.samples),
        reference=reference.pictures,
        optimized=drawn,
    )
