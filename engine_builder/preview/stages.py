"""Which stages of a build are in the store: walks the very stages that a build runs, up to the first that is not there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from engine_builder.build import BuildSettings, EnginePlan, require_target
from engine_builder.errors import BuildError, QualityBudgetError, UnsupportedTargetError
from engine_builder.preview.view import NotInStoreError, StoreView
from engine_builder.progress import SilentProgress
from engine_builder.quiet_imports import quiet_imports

SCORING = ("fetch", "reference", "quantize", "candidate")
"""Stages that every recipe goes through; those after them depend on what these found."""


@dataclass(frozen=True)
class StageState:
    """A stage whose inputs are known."""

    stage: str
    label: str
    """What it works on; may be empty."""
    in_store: bool


@dataclass(frozen=True)
class StagePreview:
    """The stages that can be known without running any, in the order in which a build asks for them."""

    stages: tuple[StageState, ...]
    problem: str = ""
    """Why a build on this machine would fail, where that is known by now."""


@dataclass
class _Recorder(SilentProgress):
    """Hears of each stage before the store is asked for it, and stops the walk at a stage outside `only`."""

    only: Collection[str] | None
    states: dict[tuple[str, str], bool] = field(default_factory=dict)
    """By stage and label, whether it is in the store."""

    def stage_started(self, stage: str, detail: str = "") -> None:
        """Take a stage for missing until its end is heard of."""
        if self.only is not None and stage not in self.only:
            raise NotInStoreError(stage)
        self._current = (stage, detail)
        self.states[self._current] = False

    def stage_finished(self, stage: str, seconds: float, *, reused: bool) -> None:
        """Note that a stage is there."""
        self.states[self._current] = reused


def preview_stages(plan: EnginePlan, store: StoreView, settings: BuildSettings) -> StagePreview:
    """Tell of each stage that can be known without running one whether a build would reuse it.

    Loads torch, for seconds, where the store has a checkpoint: what comes after it depends on what is in it.
    """
    uri = plan.job.model.uri
    if not any((store.root / "artifacts").glob("fetch-*")):
        return StagePreview((StageState("fetch", uri, in_store=False),), _target_problem(plan))
    problem = _target_problem(plan)
    recorder = _Recorder(only=SCORING)
    for candidate in plan.candidates:
        _walk(replace(plan, candidates=(candidate,)), store, settings, recorder)
    if not problem:
        recorder.only = None
        problem = _walk(plan, store, settings, recorder)
    states = tuple(StageState(stage, label, in_store) for (stage, label), in_store in recorder.states.items())
    return StagePreview(states, problem)


def _target_problem(plan: EnginePlan) -> str:
    try:
        require_target(plan.job)
    except UnsupportedTargetError as error:
        return str(error)
    return ""


def _walk(plan: EnginePlan, store: StoreView, settings: BuildSettings, recorder: _Recorder) -> str:
    """Go on until a stage is not in the store; return why a build would fail before that, if it would."""
    with quiet_imports():
        from engine_builder.workflow import run_workflow  # noqa: PLC0415  # Imports torch.
    try:
        run_workflow(plan, store, settings, recorder)
    except NotInStoreError:
        return ""
    except BuildError as error:
        # One recipe outside the budget is no failure of a search; that of all of them is found in the last walk.
        return "" if isinstance(error, QualityBudgetError) and recorder.only is not None else str(error)
    return ""
