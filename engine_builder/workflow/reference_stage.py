"""The `reference` stage: what the unoptimized model draws, at every output size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.model_spec import Shape
from diffusion_api.optimization import QualityBudget
from engine_builder.errors import QualityBudgetError
from engine_builder.evaluation.budget import worst_quality
from engine_builder.evaluation.metrics import measure
from engine_builder.evaluation.piece_times import PieceTimes
from engine_builder.evaluation.reference import Drawing, Generator, Reference, draw, draw_reference, load_reference, save_reference
from engine_builder.evaluation.samples import Sample
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.simulation import BATCH_SIZE, Simulation
from engine_runtime.pieces import PieceRunner
from engine_runtime.requests import GenerationRequest

TIMES_FILE = "times.json"
UNOPTIMIZED = "unoptimized"
FURTHER_SIZE_SAMPLES = 8
"""The first output size is judged on every evaluation sample, each further one on so many."""


@dataclass(frozen=True)
class References:
    """The reference at every output size, the default size first."""

    by_size: tuple[Reference, ...]
    body_share: float
    """Share of a generation's time that the transformer's body takes. Kept, for measured anew it would differ from run to run."""
    digest: str

    @property
    def default(self) -> Reference:
        """The reference at the default size."""
        return self.by_size[0]


def unoptimized(context: BuildContext) -> Simulation:
    """Return the checkpoint as it is."""
    return context.simulation(UNOPTIMIZED, lambda _: None)


def reference_stage(context: BuildContext) -> References:
    """Draw the evaluation samples with the unoptimized model, or load them."""
    wanted = [(shape, _samples(context, index)) for index, shape in enumerate(context.job.shapes)]

    def work(folder: Path) -> None:
        engine = unoptimized(context).engine()
        for done, (shape, samples) in enumerate(wanted):
            context.runner.progress.advance("reference", done, len(wanted))
            reference = draw_reference(engine, samples, size=shape.name, batch_size=BATCH_SIZE)
            save_reference(reference, folder / shape.name)
        (folder / TIMES_FILE).write_text(json.dumps({"bodyShare": _body_share(context)}) + "\n")

    inputs = (context.checkpoint.digest, context.drawing, context.arithmetic, [_identity(shape, samples) for shape, samples in wanted])
    result = context.runner.run("reference", inputs, work)
    by_size = tuple(load_reference(result.path / shape.name) for shape, _ in wanted)
    return References(by_size, json.loads((result.path / TIMES_FILE).read_text())["bodyShare"], result.digest)


def draw_like(generator: Generator, references: References) -> tuple[Drawing, ...]:
    """Draw what the references drew, with another engine."""
    return tuple(draw(generator, reference.samples, size=reference.size, batch_size=BATCH_SIZE) for reference in references.by_size)


@dataclass(frozen=True)
class Judgement:
    """What a recipe or an engine draws, measured."""

    drawings: tuple[Drawing, ...]
    """One each output size; empty where it draws nothing."""
    quality: MeasuredQuality
    failure: str
    """Why it cannot be measured (NaN, constant pictures); empty where it can."""


def judge(context: BuildContext, references: References, generator: Generator) -> Judgement:
    """Draw what the references drew, and measure it; whoever draws nothing is refused itself, not the whole build with it."""
    try:
        drawings = draw_like(generator, references)
    except QualityBudgetError as error:
        return Judgement((), MeasuredQuality(), str(error))
    return Judgement(drawings, quality_of(context, references, drawings), "")


def quality_of(context: BuildContext, references: References, drawings: Sequence[Drawing]) -> MeasuredQuality:
    """Measure drawings against the references; of several sizes, each metric's worst."""
    budget = context.job.optimization.quality_budget
    found = [
        measure(reference.pictures, drawing.pictures, budget, prompts=reference.prompts, models=context.perceptual_models)
        for reference, drawing in zip(references.by_size, drawings, strict=True)
    ]
    return worst_quality(found)


def measured_metrics(budget: QualityBudget) -> list[str]:
    """Return the metrics that are measured only where a budget limits them, for the digests of stages that measure: limits change none."""
    return [name for name in ("max_flip", "max_lpips", "max_clip_drop") if getattr(budget, name) is not None]


def _body_share(context: BuildContext) -> float:
    """Return the share of a generation's time that the transformer's body takes, in torch, batch 1, after a warm-up."""
    times: list[PieceTimes] = []
    on_gpu = context.placement.device.type == "cuda"

    def watched(runners: Mapping[str, PieceRunner]) -> Mapping[str, PieceRunner]:
        times.append(PieceTimes(runners, synchronize=torch.cuda.synchronize if on_gpu else lambda: None))
        return times[0].runners

    engine = unoptimized(context).engine(wrap=watched)
    request = GenerationRequest(context.samples.evaluation[0].prompt, size=context.job.shapes[0].name)
    engine.generate([request])
    times[0].reset()
    engine.generate([request])
    return times[0].share("transformer_body")


def _samples(context: BuildContext, index: int) -> tuple[Sample, ...]:
    samples = context.samples.evaluation
    return samples if index == 0 else samples[:FURTHER_SIZE_SAMPLES]


def _identity(shape: Shape, samples: Sequence[Sample]) -> list[object]:
    return [shape.name, identities(samples)]


def identities(samples: Sequence[Sample]) -> list[list[str | int]]:
    """Return what makes samples the same, for a stage's inputs."""
    return [[sample.prompt, sample.seed] for sample in samples]
