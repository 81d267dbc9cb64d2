"""The `reference` stage: what the unoptimized model draws, at every output size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_api.deployment import MeasuredQuality
from diffusion_api.model_spec import Shape
from engine_builder.evaluation.metrics import measure
from engine_builder.evaluation.reference import Drawing, Generator, Reference, draw, draw_reference, load_reference, save_reference
from engine_builder.evaluation.samples import Sample
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.simulation import BATCH_SIZE, Simulation

UNOPTIMIZED = "unoptimized"
FURTHER_SIZE_SAMPLES = 8
"""The first output size is judged on every evaluation sample, each further one on so many."""


@dataclass(frozen=True)
class References:
    """The reference at every output size, the default size first."""

    by_size: tuple[Reference, ...]
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

    inputs = (context.checkpoint.digest, context.manifest, [_identity(shape, samples) for shape, samples in wanted])
    result = context.runner.run("reference", inputs, work)
    return References(tuple(load_reference(result.path / shape.name) for shape, _ in wanted), result.digest)


def draw_like(generator: Generator, references: References) -> tuple[Drawing, ...]:
    """Draw what the references drew, with another engine."""
    return tuple(draw(generator, reference.samples, size=reference.size, batch_size=BATCH_SIZE) for reference in references.by_size)


def quality_of(context: BuildContext, references: References, drawings: Sequence[Drawing]) -> MeasuredQuality:
    """Measure drawings against the references; of several sizes, each metric's worst."""
    budget = context.job.optimization.quality_budget
    found = [
        measure(reference.pictures, drawing.pictures, budget, prompts=reference.prompts, models=context.perceptual_models)
        for reference, drawing in zip(references.by_size, drawings, strict=True)
    ]
    return MeasuredQuality(
        psnr=_worst([quality.psnr for quality in found], largest=False),
        ssim=_worst([quality.ssim for quality in found], largest=False),
        flip=_worst([quality.flip for quality in found], largest=True),
        lpips=_worst([quality.lpips for quality in found], largest=True),
        clip_drop=_worst([quality.clip_drop for quality in found], largest=True),
    )


def _worst(values: Sequence[float | None], *, largest: bool) -> float | None:
    measured = [value for value in values if value is not None]
    return (max if largest else min)(measured) if measured else None


def _samples(context: BuildContext, index: int) -> tuple[Sample, ...]:
    samples = context.samples.evaluation
    return samples if index == 0 else samples[:FURTHER_SIZE_SAMPLES]


def _identity(shape: Shape, samples: Sequence[Sample]) -> list[object]:
    return [shape.name, [[sample.prompt, sample.seed] for sample in samples]]
