"""The `verify` stage, in one run: the compiled engine against the reference (quality), against the unoptimized model and without its
step cache (speed)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion_api.build_job import Verification
from diffusion_api.build_report import Comparison, Latency
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.engine_manifest import EngineManifest
from diffusion_api.optimization import StepCachePolicy
from diffusion_api.recipe import NoStepCache
from engine_builder.evaluation.budget import within_budget
from engine_builder.evaluation.metrics import Pictures
from engine_builder.evaluation.reference import Drawing
from engine_builder.evaluation.speed import Generate, latencies_in_turns
from engine_builder.step_cache.plan import MIN_GAIN
from engine_builder.workflow.compilation import MIB, CompiledEngine
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.placement import fits_beside, model_size
from engine_builder.workflow.reference_stage import References, judge, measured_metrics, unoptimized
from engine_builder.workflow.search import Choice, candidate_simulation
from engine_builder.workflow.simulation import BATCH_SIZE, tokenizer_file
from engine_runtime.executors import load_runner
from engine_runtime.executors.threads import cpu_threads
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
        context.release()
        engines = [
            compiled_engine(context, compiled, manifest)
            if on_engine
            else candidate_simulation(context, choice.scored).engine(choice.step_cache)
        ]
        found = judge(context, references, engines[0])
        if found.drawings:
            _save_pictures(found.drawings[0], folder / PICTURE_FOLDER)
        comparison = _compare(context, compiled, manifest, engines) if on_engine and not found.failure else None
        result = {
            "quality": found.quality.to_wire(),
            "failure": found.failure,
            "comparison": comparison.to_wire() if comparison else None,
        }
        (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")

    budget = context.job.optimization.quality_budget
    candidate, cache = choice.scored.artifact.digest, None if isinstance(choice.step_cache, NoStepCache) else choice.step_cache
    measured = (context.job.verification, measured_metrics(budget), context.plan.metric_revisions)
    # Another machine is as fast as it is, and so are other threads: what they serve is measured there, never taken from a shared store.
    place = (context.machine, cpu_threads()) if on_engine else None
    uncached = compiled.uncached and compiled.uncached.digest
    inputs = (references.digest, compiled.digest, uncached, candidate, cache, *measured, place)
    artifact = context.runner.run("verify", inputs, work, label=choice.recipe.label)
    result = json.loads((artifact.path / RESULT_FILE).read_text())
    quality = MeasuredQuality.model_validate(result["quality"])
    comparison = Comparison.model_validate(result["comparison"]) if result["comparison"] else None
    objections = [result["failure"]] if result["failure"] else within_budget(quality, budget)
    if comparison is not None:
        automatic = context.job.optimization.step_cache.policy is StepCachePolicy.AUTO
        objections += too_slow(comparison, simulated=choice.scored.candidate.simulated, automatic_cache=automatic)
    return Verified(quality, comparison, artifact.path / PICTURE_FOLDER, tuple(objections), on_engine, artifact.digest)


def too_slow(comparison: Comparison, *, simulated: bool, automatic_cache: bool) -> list[str]:
    """Say why an engine's speed speaks against it; empty where it does not.

    Args:
        comparison: What was measured.
        simulated: The format has no kernels here, so its speed means nothing.
        automatic_cache: A step cache was chosen for its gain, not named by the job.
    """
    gain = comparison.step_cache_gain
    objections = []
    if comparison.speedup <= 1 and not simulated:
        objections.append(f"the engine is not faster than the unoptimized model ({comparison.speedup:.2f}×)")
    if gain is not None and gain < MIN_GAIN and automatic_cache:
        saved = f"saves {gain:.1%} of a generation's time" if gain > 0 else "saves nothing"
        objections.append(f"the step cache {saved} on the engine, less than {MIN_GAIN:.0%}")
    return objections


def compiled_engine(context: BuildContext, compiled: CompiledEngine, manifest: EngineManifest) -> Engine:
    """Load the compiled pieces behind the loop that serves."""
    runners = {name: load_runner(compiled.folders[name], piece) for name, piece in compiled.pieces.items()}
    tokenizer = PromptTokenizer(tokenizer_file(context.checkpoint.folder), manifest.text)
    return Engine(manifest, runners, _constants(context), tokenizer, max_batch_size=min(BATCH_SIZE, manifest.max_batch_size))


def _constants(context: BuildContext) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {name: tensor.numpy() for name, tensor in context.family.constants(context.manifest).items()}


def _compare(context: BuildContext, compiled: CompiledEngine, manifest: EngineManifest, engines: list[Engine]) -> Comparison:
    """Time the engine, the same recipe without its step cache, and the unoptimized model: in turns where all fit into the memory.

    Args:
        context: The build.
        compiled: The engine's files.
        manifest: Its manifest.
        engines: The engine, loaded; taken out, so that it can make room for what is timed after it.
    """
    uncached = compiled.uncached
    makers: list[Callable[[], Engine]] = [engines.pop]
    if uncached is not None:
        plain = manifest.model_copy(update={"pieces": dict(uncached.pieces), "step_cache": NoStepCache()})
        makers.append(lambda: compiled_engine(context, uncached, plain))
    makers.append(lambda: unoptimized(context).engine())
    engines_mib = compiled.size_mib + (uncached.size_mib if uncached is not None else 0.0)
    in_turns = fits_beside(context.placement, model_size(context.checkpoint.folder), round(engines_mib * MIB))
    with _torch_threads(cpu_threads()):
        optimized, *without, slow = (_time_in_turns if in_turns else _time_one_by_one)(context, makers)
    return Comparison(
        unoptimized=slow,
        optimized=optimized,
        without_step_cache=without[0] if without else None,
        in_turns=in_turns,
        measured_on=context.machine,
    )


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Give torch as many threads as compiled pieces have: by itself it takes the machine's cores, whatever the container is given."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time_in_turns(context: BuildContext, makers: Sequence[Callable[[], Engine]]) -> list[Latency]:
    prompt, size = context.samples.evaluation[0].prompt, context.job.shapes[0].name

    def drawing(engine: Engine) -> Generate:
        return lambda seed: engine.generate([GenerationRequest(prompt, seed, size)])

    return latencies_in_turns(
        [drawing(make()) for make in makers], LATENCY_REPEATS, at_least=MIN_LATENCY_REPEATS, budget_seconds=LATENCY_SECONDS
    )


def _time_one_by_one(context: BuildContext, makers: Sequence[Callable[[], Engine]]) -> list[Latency]:
    found = []
    for make in makers:
        found += _time_in_turns(context, [make])
        context.release()
    return found


def _save_pictures(drawing: Drawing, folder: Path) -> None:
    folder.mkdir()
    for index, picture in enumerate(drawing.pictures):
        Image.fromarray(picture).save(folder / f"{index:04d}.png")


def load_pictures(folder: Path, count: int) -> Pictures:
    """Read the pictures of the default size, UINT8 [N, H, W, 3]."""
    return np.stack([np.asarray(Image.open(folder / f"{index:04d}.png")) for index in range(count)])
