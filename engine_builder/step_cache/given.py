"""What the job itself decides about the step cache: nothing is drawn for it, and no model is loaded."""

from __future__ import annotations

from diffusion_api.build_report import CacheCalibration
from diffusion_api.optimization import StepCache, StepCachePolicy
from diffusion_api.recipe import FixedMaskStepCache, NoStepCache, StepCachePlan
from engine_builder.errors import InvalidJobError

Decision = tuple[StepCachePlan, CacheCalibration]


def given_step_cache(choice: StepCache, *, steps: int, body_share: float) -> Decision | None:
    """Return what the job names outright, none or a mask; None where something must be found or fitted.

    A named mask is not measured here: nothing could be chosen otherwise, and `verify` measures the whole recipe with it.

    Args:
        choice: What the job asks for.
        steps: Length of the schedule.
        body_share: Share of a generation's time that the transformer's body takes, in [0, 1].

    Raises:
        InvalidJobError: The mask does not fit the schedule.
    """
    if choice.mask is not None:
        if len(choice.mask) != steps:
            raise InvalidJobError(f"stepCache.mask has {len(choice.mask)} entries but the schedule {steps} steps; give one for each")
        plan = FixedMaskStepCache(mask=choice.mask)
        saved = (1 - sum(choice.mask) / steps) * body_share
        return plan, CacheCalibration(decision=f"the job names the mask: {plan.label} saves {saved:.0%} of a generation's time")
    if choice.policy is StepCachePolicy.NONE:
        return switched_off("the job turns it off")
    return None


def switched_off(reason: str, calibration: CacheCalibration | None = None) -> Decision:
    """Return the decision against a step cache, with what was measured before."""
    return NoStepCache(reason=reason), (calibration or CacheCalibration()).model_copy(update={"decision": f"off: {reason}"})
