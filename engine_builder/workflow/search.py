"""The `candidate` and `step-cache` stages: scores every recipe in torch, and puts those inside the budget in order of speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_api.build_report import CacheCalibration, CandidateResult
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.optimization import StepCachePolicy
from diffusion_api.recipe import FixedMaskStepCache, NoStepCache, Recipe, StepCachePlan, TeaCacheStepCache
from engine_builder.errors import QualityBudgetError
from engine_builder.evaluation.budget import candidate_table, within_budget
from engine_builder.planning import Candidate
from engine_builder.stage_runner import StageResult
from engine_builder.step_cache.given import Decision, given_step_cache
from engine_builder.step_cache.plan import plan_step_cache
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.quantization_stage import quantize_stages, quantized_simulation, weight_bytes
from engine_builder.workflow.reference_stage import References, identities, judge, measured_metrics
from engine_builder.workflow.simulation import BATCH_SIZE, Simulation

RESULT_FILE = "result.json"
MIB = 2**20


@dataclass(frozen=True)
class Scored:
    """A candidate with what it reached in torch, without a step cache."""

    candidate: Candidate
    quality: MeasuredQuality
    transformer_mib: float
    artifact: StageResult
    broken_limits: tuple[str, ...]
    """Sentences; empty inside the budget."""
    quantized: Mapping[str, StageResult] = field(default_factory=dict)
    """By component."""


@dataclass(frozen=True)
class Choice:
    """A recipe that may be built, with its step cache."""

    scored: Scored
    step_cache: StepCachePlan
    calibration: CacheCalibration
    expected_speedup: float

    @property
    def recipe(self) -> Recipe:
        """The whole recipe."""
        return self.scored.candidate.recipe.model_copy(update={"step_cache": self.step_cache})


def score_candidates(context: BuildContext, references: References) -> list[Scored]:
    """Score every recipe of the plan, the fastest expected first."""
    return [_score(context, references, candidate) for candidate in context.plan.candidates]


def choose(context: BuildContext, references: References, scored: Sequence[Scored]) -> list[Choice]:
    """Return the recipes inside the budget with their step caches, the fastest expected first.

    A recipe whose best imaginable step cache could not beat one already found is left out of the calibration.

    Raises:
        QualityBudgetError: no recipe is inside the budget; the message is a table of what was reached.
    """
    inside = [each for each in scored if not each.broken_limits]
    if not inside:
        table = candidate_table([report_of(each) for each in scored], context.job.optimization.quality_budget)
        raise QualityBudgetError(f"no recipe holds the quality budget; relax optimization.qualityBudget or name another format\n{table}")
    share = references.body_share
    choices: list[Choice] = []
    for each in inside:
        best = max((choice.expected_speedup for choice in choices), default=0.0)
        if each.candidate.expected_speedup * _cache_gain(share, 1.0) > best:
            choices += _with_and_without(context, _with_step_cache(context, references, each, share))
        else:
            plain = NoStepCache(reason="not calibrated: a faster recipe was found before")
            choices.append(Choice(each, plain, CacheCalibration(), each.candidate.expected_speedup))
    return sorted(choices, key=lambda choice: -choice.expected_speedup)


def report_of(scored: Scored, *, chosen: bool = False, note: str = "") -> CandidateResult:
    """Return a candidate's line of the report."""
    return CandidateResult(
        recipe=scored.candidate.recipe,
        label=scored.candidate.recipe.label.rsplit(", ", 1)[0],
        quality=scored.quality,
        expected_speedup=scored.candidate.expected_speedup,
        within_budget=not scored.broken_limits,
        chosen=chosen,
        simulated=scored.candidate.simulated,
        size_mib=scored.transformer_mib,
        note=note or "; ".join(scored.broken_limits),
    )


def candidate_simulation(context: BuildContext, scored: Scored) -> Simulation:
    """Return the quantized model of a candidate, restored where it is not in memory."""
    return quantized_simulation(context, scored.quantized)


def _score(context: BuildContext, references: References, candidate: Candidate) -> Scored:
    quantized = quantize_stages(context, candidate.recipe)
    budget = context.job.optimization.quality_budget

    def work(folder: Path) -> None:
        simulation = quantized_simulation(context, quantized)
        transformer = quantized.get("transformer")
        size = _size(simulation, "transformer") if transformer is None else weight_bytes(transformer)
        found = judge(context, references, simulation.engine())
        result = {"quality": found.quality.to_wire(), "failure": found.failure, "transformerMib": size / MIB}
        (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")

    parts = {name: result.digest for name, result in quantized.items()}
    inputs = (references.digest, parts, measured_metrics(budget), context.plan.metric_revisions)
    artifact = context.runner.run("candidate", inputs, work, label=candidate.recipe.label.rsplit(", ", 1)[0])
    result = json.loads((artifact.path / RESULT_FILE).read_text())
    quality = MeasuredQuality.model_validate(result["quality"])
    broken = [result["failure"]] if result["failure"] else within_budget(quality, budget)
    return Scored(candidate, quality, result["transformerMib"], artifact, tuple(broken), quantized)


def _with_and_without(context: BuildContext, choice: Choice) -> list[Choice]:
    """Follow a step cache that the search chose by the same recipe without it: the engine may not hold what it promised."""
    automatic = context.job.optimization.step_cache.policy is StepCachePolicy.AUTO
    if not automatic or isinstance(choice.step_cache, NoStepCache):
        return [choice]
    reason = "with it the compiled engine did not hold what was asked for"
    calibration = choice.calibration.model_copy(update={"decision": f"off: {reason} ({choice.calibration.decision})"})
    scored, plan = choice.scored, NoStepCache(reason=reason)
    return [choice, Choice(scored, plan, calibration, scored.candidate.expected_speedup)]


def _with_step_cache(context: BuildContext, references: References, scored: Scored, body_share: float) -> Choice:
    steps = len(context.manifest.shapes[0].sigmas) - 1
    given = given_step_cache(context.job.optimization.step_cache, steps=steps, body_share=body_share)
    plan, calibration = given or _found_step_cache(context, references, scored, body_share)
    gain = _cache_gain(body_share, _skip_ratio(plan))
    return Choice(scored, plan, calibration, scored.candidate.expected_speedup * gain)


def _found_step_cache(context: BuildContext, references: References, scored: Scored, body_share: float) -> Decision:
    optimization = context.job.optimization

    def work(folder: Path) -> None:
        plan, calibration = plan_step_cache(
            optimization.step_cache,
            candidate_simulation(context, scored).engine,
            schedules={plan.shape.name: plan.sigmas for plan in context.manifest.shapes},
            calibration=context.samples.calibration,
            references=references.by_size,
            budget=optimization.quality_budget,
            body_share=body_share,
            models=context.perceptual_models,
            batch_size=BATCH_SIZE,
        )
        recipe = scored.candidate.recipe.model_copy(update={"step_cache": plan})
        result = {"recipe": recipe.to_wire(), "calibration": calibration.to_wire()}
        (folder / RESULT_FILE).write_text(json.dumps(result) + "\n")

    inputs = (
        scored.artifact.digest,
        optimization.step_cache,
        optimization.quality_budget,
        context.plan.metric_revisions,
        identities(context.samples.calibration),
    )
    artifact = context.runner.run("step-cache", inputs, work)
    result = json.loads((artifact.path / RESULT_FILE).read_text())
    return Recipe.model_validate(result["recipe"]).step_cache, CacheCalibration.model_validate(result["calibration"])


def _skip_ratio(plan: StepCachePlan) -> float:
    match plan:
        case FixedMaskStepCache():
            return 1 - sum(plan.mask) / len(plan.mask)
        case TeaCacheStepCache():
            return plan.skip_ratio
        case NoStepCache():
            return 0.0


def _cache_gain(body_share: float, skip_ratio: float) -> float:
    """Return how many times faster a generation is when a share of its body's runs is left out."""
    return 1 / max(1 - body_share * skip_ratio, 0.05)


def _size(simulation: Simulation, component: str) -> int:
    return sum(p.numel() * p.element_size() for p in simulation.model.components[component].parameters())
