"""Noise levels of flow-matching models, as diffusers' `FlowMatchEulerDiscreteScheduler` computes them, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_builder.errors import InvalidModelError

SCHEDULER = "FlowMatchEulerDiscreteScheduler"

_UNSUPPORTED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling")


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Refuse a scheduler that the denoising loop does not follow.

    Raises:
        InvalidModelError: Another class, or an option outside the Euler method for rectified flow.
    """
    if config.get("_class_name") != SCHEDULER:
        raise InvalidModelError(f"scheduler: {config.get('_class_name')} is not supported; use {SCHEDULER}")
    for option in _UNSUPPORTED:
        if config.get(option):
            raise InvalidModelError(f"scheduler: {option} is not supported; set it to false in scheduler/scheduler_config.json")
    if config.get("time_shift_type", "exponential") not in ("exponential", "linear"):
        raise InvalidModelError(f"scheduler: time_shift_type {config['time_shift_type']} is neither exponential nor linear")


def flow_sigmas(config: Mapping[str, Any], sigmas: Sequence[float], mu: float) -> tuple[float, ...]:
    """Shift noise levels as the scheduler is configured and append the final 0.

    Args:
        config: `scheduler_config.json`.
        sigmas: Unshifted levels in (0, 1], descending.
        mu: Shift of a resolution, used where `use_dynamic_shifting` is set.

    Source: diffusers 0.42 `FlowMatchEulerDiscreteScheduler.set_timesteps`, in FP32 as there; Esser et al. 2024, arXiv:2403.03206,
    section 5.3.2.
    """
    levels: NDArray[np.float32] = np.asarray(sigmas, dtype=np.float32)
    if config.get("use_dynamic_shifting", False):
        weight = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
        levels = (weight / (weight + (1 / levels - 1))).astype(np.float32)
    else:
        shift = float(config.get("shift", 1.0))
        levels = (shift * levels / (1 + (shift - 1) * levels)).astype(np.float32)
    noise = 1 - levels
    if (terminal := config.get("shift_terminal")) and noise[-1] > 0:  # A single level of 1 cannot end elsewhere.
        levels = (1 - noise / (noise[-1] / (1 - terminal))).astype(np.float32)
    return (*(float(level) for level in levels), 0.0)
