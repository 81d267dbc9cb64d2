"""The `verify` stage: the compiled engine against the reference (quality) and against the unoptimized model (speed), in one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_api.build_job import Verification
from diffusion_api.build_report import Comparison
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.recipe import NoStepCache
from engine_builder.evaluation.budget import within_budget
from engine_builder.evaluation.metrics import Pictures
from engine_builder.evaluation.reference import Drawing
from engine_builder.evaluation.speed import compare_latency
from engine_builder.workflow.compilation import CompiledEngine
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.reference_stage import References, judge, measured_metrics, unoptimized
from engine_builder.workflow.search import Choice, candidate_simulation
from engine_builder.workflow.simulation import BATCH_SIZE, tokenizer_file
from engine_runtime.executors import load_runner
from engine_runtime.generation import Engine
from engine_runtime.requests import GenerationRequest
from engine_runtime.tokenizer import PromptTokenizer

RESULT_FILE = "result.json"
PICTURE_FOLDER = "pictures"
LATENCY_REPEATS = 15
MIN_LATENCY_REPEATS = 3
LATENCY_SECONDS = 120.0
"""A large model on a CPU takes minutes a picture: it is measured three times, and the report says so."""


@dataclass(frozen=True)
class Verified:
    """What an engine holds, measured on what will serve."""

    quality: MeasuredQuality
    comparison: Comparison | None
    """None where the engine cannot run on this machine."""
    pictures: Path
    """Folder of PNGs, one for each reference picture of the default size."""
    objections: tuple[str, ...]
    """Why it must not be published; empty where it may."""
    on_engine: bool
    digest: str


def verify_stage(
    context: BuildContext, references: References, choice: Choice, compiled: CompiledEngine, manifest: EngineManifest
) -> Verified:
    """Measure an engine; with `verification: Simulated`, measure the quantized model in torch instead."""
    on_engine = context.job.verification is Verification.ENGINE

    def work(folder: Path) -> None:
        engine = (
            compiled_engine(context, compiled, manifest)
            if on_engine
            else candidate_simulation(context, choice.scored).engine(choice.step_cache)
        )
        found = judge(context, references, engine)
        if found.drawings:
            _save_pictures(found.drawings[0], folder / PICTURE_FOLDER)
        comparison = _compare(context, engine) if on_engine and not found.failure else None
        result = {
            "quality": found.quality.to_wire(),
            "failure": found.failure,
            "comparison": comparison.to_wire() if comparison else None,
        }
        (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")

    budget = context.job.optimization.quality_budget
    candidate, cache = choice.scored.artifact.digest, None if isinstance(choice.step_cache, NoStepCache) else choice.step_cache
    measured = (context.job.verification, measured_metrics(budget), context.plan.metric_revisions)
    # Another machine is as fast as it is: what it serves is measured on it, never taken from a store that machines share.
    inputs = (references.digest, compiled.digest, candidate, cache, *measured, context.machine if on_engine else None)
    artifact = context.runner.run("verify", inputs, work, label=choice.recipe.label)
    result = json.loads((artifact.path / RESULT_FILE).read_text())
    quality = MeasuredQuality.model_validate(result["quality"])
    comparison = Comparison.model_validate(result["comparison"]) if result["comparison"] else None
    objections = [result["failure"]] if result["failure"] else within_budget(quality, budget)
    if comparison is not None and comparison.speedup <= 1 and not choice.scored.candidate.simulated:
        objections.append(f"the engine is not faster than the unoptimized model ({comparison.speedup:.2f}×)")
    return Verified(quality, comparison, artifact.path / PICTURE_FOLDER, tuple(objections), on_engine, artifact.digest)


def compiled_engine(context: BuildContext, compiled: CompiledEngine, manifest: EngineManifest) -> Engine:
    """Load the compiled pieces behind the loop that serves."""
    runners = {name: load_runner(compiled.folders[name], piece) for name, piece in compiled.pieces.items()}
    tokenizer = PromptTokenizer(tokenizer_file(context.checkpoint.folder), manifest.text)
    return Engine(manifest, runners, _constants(context), tokenizer, max_batch_size=min(BATCH_SIZE, manifest.max_batch_size))


def _constants(context: BuildContext) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {name: tensor.numpy() for name, tensor in context.family.constants(context.manifest).items()}


def _compare(context: BuildContext, engine: Engine) -> Comparison:
    slow = unoptimized(context).engine()
    prompt, size = context.samples.evaluation[0].prompt, context.job.shapes[0].name
    comparison = compare_latency(
        lambda seed: slow.generate([GenerationRequest(prompt, seed, size)]),
        lambda seed: engine.generate([GenerationRequest(prompt, seed, size)]),
        LATENCY_REPEATS,
        at_least=MIN_LATENCY_REPEATS,
        budget_seconds=LATENCY_SECONDS,
    )
    return comparison.model_copy(update={"measured_on": context.machine})


def _save_pictures(drawing: Drawing, folder: Path) -> None:
    folder.mkdir()
    for index, picture in enumerate(drawing.pictures):
        Image.fromarray(picture).save(folder / f"{index:04d}.png")


def load_pictures(folder: Path, count: int) -> Pictures:
    """Read the pictures of the default size, UINT8 [N, H, W, 3]."""
    return np.stack([np.asarray(Image.open(folder / f"{index:04d}.png")) for index in range(count)])
