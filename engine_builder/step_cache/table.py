"""The monotone table that turns a change of the indicator into the expected change of the residual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion_api.recipe import MonotoneTable
from engine_runtime.step_cache import interpolate

MIN_PAIRS = 64
MIN_R_SQUARED = 0.5
MAX_KNOTS = 32


class PoorFitError(ValueError):
    """The indicator does not predict the residual; the message says why, and the step cache stays off or takes a mask."""


def fit_monotone_table(pairs: NDArray[np.float64], *, max_knots: int = MAX_KNOTS) -> MonotoneTable:
    """Fit expected change of the residual as a non-decreasing function of the indicator's change.

    A polynomial, as TeaCache publishes, falls or turns negative in places and runs away beyond the range it was fitted on; then the
    accumulated change shrinks and steps are left out for ever. Isotonic regression fits as well and cannot do either.

    Args:
        pairs: [N, 2]: relative L1 change of the indicator, relative L1 change of the residual, between adjacent steps.
        max_knots: Points of the table; R² is that of the table, not of the regression.

    Raises:
        PoorFitError: Fewer than 64 pairs, all arguments equal, NaN, or R² below 0.5.

    Source: pool adjacent violators, Barlow et al. 1972, as in scikit-learn.
    """
    if len(pairs) < MIN_PAIRS:
        raise PoorFitError(f"only {len(pairs)} pairs were collected, {MIN_PAIRS} are needed: raise calibration.samples or the steps")
    if not np.isfinite(pairs).all():
        raise PoorFitError("the indicator or the residual is NaN or infinite in some step")
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  # Takes half a second, and only TeaCache needs it.

    x, y = pairs[:, 0], pairs[:, 1]
    knots = np.unique(np.quantile(x, np.linspace(0, 1, max_knots)))
    if len(knots) < 2:
        raise PoorFitError(f"the indicator's change is {knots[0]:.3g} in every step and predicts nothing")
    fitted = IsotonicRegression(y_min=0.0, out_of_bounds="clip").fit(x, y).predict(knots)
    table = MonotoneTable(x=tuple(knots.tolist()), y=tuple(np.maximum.accumulate(fitted).tolist()), r_squared=0.0, samples=len(pairs))
    r_squared = coefficient_of_determination(y, interpolate(table, x))
    if r_squared < MIN_R_SQUARED:
        raise PoorFitError(f"R² of the fit is {r_squared:.2f}, below {MIN_R_SQUARED:g}: the indicator does not predict the residual")
    return table.model_copy(update={"r_squared": r_squared})


def coefficient_of_determination(observed: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return R² = 1 − Σ(observed − predicted)² / Σ(observed − mean)²; 0 where the observed do not vary."""
    spread = float(np.sum((observed - observed.mean()) ** 2))
    return 1.0 - float(np.sum((observed - predicted) ** 2)) / spread if spread > 0 else 0.0
