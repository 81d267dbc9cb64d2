"""The stages of one build, in order; each is an artifact of the store, so a killed build goes on where it stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from diffusion_api.engine_manifest import EngineManifest
from engine_builder.build import BuildSettings, EnginePlan
from engine_builder.errors import CompileError, InvalidJobError, QualityBudgetError
from engine_builder.evaluation.budget import text_table
from engine_builder.evaluation.samples import split_samples
from engine_builder.families.registry import family_for
from engine_builder.progress import BuildProgress
from engine_builder.stage_runner import StageRunner
from engine_builder.store import Store
from engine_builder.workflow.checkpoint_stage import checkpoint_stage, perceptual_models
from engine_builder.workflow.compilation import CompiledEngine, build_pieces
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.packaging import Outcome, publish
from engine_builder.workflow.placement import model_size, placement_for
from engine_builder.workflow.reference_stage import reference_stage
from engine_builder.workflow.search import Choice, choose, score_candidates
from engine_builder.workflow.verification import Verified, verify_stage
from engine_runtime.errors import GenerationError

__all__ = ["run_workflow"]


def run_workflow(plan: EnginePlan, store: Store, settings: BuildSettings, progress: BuildProgress) -> Path:
    """Build a plan's engine and return its published folder.

    Raises:
        BuildError: see `engine_builder.errors`; nothing is published, and what was finished stays in the store.
    """
    started_at = datetime.now(UTC)
    context = prepare(plan, StageRunner(store, progress), settings)
    references = reference_stage(context)
    scored = score_candidates(context, references)
    refused: list[tuple[Choice, Verified]] = []
    for choice in choose(context, references, scored):
        compiled = build_pieces(context, choice)
        manifest = engine_manifest(context, choice, compiled)
        try:
            verified = verify_stage(context, references, choice, compiled, manifest)
        except GenerationError as error:
            raise CompileError(f"{choice.recipe.label} was compiled but does not run: {error}") from error
        if not verified.objections:
            return publish(context, Outcome(references, scored, choice, compiled, manifest, verified, refused), started_at)
        progress.message(f"{choice.recipe.label}: {'; '.join(verified.objections)}; trying the next recipe")
        refused.append((choice, verified))
    rows = [[choice.recipe.label, "; ".join(verified.objections)] for choice, verified in refused]
    raise QualityBudgetError(
        f"no compiled engine holds what was asked for; nothing was published\n{text_table(['recipe', 'why not'], rows)}"
    )


def prepare(plan: EnginePlan, runner: StageRunner, settings: BuildSettings) -> BuildContext:
    """Fetch the checkpoint and check everything that needs no weights in memory."""
    checkpoint = checkpoint_stage(plan, runner, settings)
    family = family_for(checkpoint.folder)
    model = plan.job.model
    family.check(checkpoint.folder, model.sampling, plan.job.shapes)
    manifest = family.manifest(checkpoint.folder, model.sampling, plan.job.shapes, plan.job.max_batch_size)
    if unknown := sorted(set(plan.job.optimization.quantization.components) - set(family.components)):
        others = " or ".join(name for name in family.components if name != "transformer")
        raise InvalidJobError(f"optimization.quantization.components: {family.name} has no {', '.join(unknown)}; use {others}")
    mask, steps = plan.job.optimization.step_cache.mask, len(manifest.shapes[0].sigmas) - 1
    if mask is not None and len(mask) != steps:
        raise InvalidJobError(f"stepCache.mask has {len(mask)} entries, and the checkpoint's schedule {steps} steps; give one for each")
    calibration = plan.job.optimization.calibration
    samples = split_samples(calibration.prompts or family.prompts(checkpoint.folder), calibration)
    placement = placement_for(plan.job.accelerator, model_size(checkpoint.folder))
    if placement.reason:
        runner.progress.message(placement.reason)
    return BuildContext(plan, runner, checkpoint, family, manifest, placement, samples, perceptual_models(plan, runner, settings), {})


def engine_manifest(context: BuildContext, choice: Choice, compiled: CompiledEngine) -> EngineManifest:
    """Return the manifest of a compiled recipe."""
    return context.manifest.model_copy(
        update={
            "engine_key": context.plan.engine_key,
            "recipe": choice.recipe,
            "pieces": dict(compiled.pieces),
            "step_cache": choice.step_cache,
        }
    )
