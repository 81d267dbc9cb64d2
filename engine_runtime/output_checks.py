"""Tells an engine that draws nothing from one that draws: NaN must never reach a user as a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from engine_runtime.arrays import is_finite
from engine_runtime.errors import DegenerateOutputError, NotFiniteError
from engine_runtime.pieces import Array

SAMPLED_VALUES = 1024
CURE = "The engine's precision is too low for this model: build it with BF16 or FP32"


def check_latents(latents: Mapping[str, Array]) -> None:
    """Refuse denoised latents [B, …] by stream that are not finite.

    Raises:
        NotFiniteError: names the rows of the batch.
    """
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce([is_finite(latent) for latent in latents.values()])
    _refuse(NotFiniteError, "the denoiser gave NaN or infinite numbers", ~finite)


def check_outputs(outputs: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Refuse decoded outputs [B, …] by stream: floating-point ones that are not finite, 8-bit ones all of one value.

    A decoder's NaN is gone once it is rounded to 8 bit; x86 makes it 0. A group normalization after it has spread it over the whole picture
    by then, which is why one value everywhere tells it. This costs a look at some values, and at all of them only where those are equal.

    Raises:
        NotFiniteError: A decoder that does not round gave NaN; names the rows.
        DegenerateOutputError: A picture has one value everywhere; names the rows.
    """
    for stream, output in outputs.items():
        if np.issubdtype(output.dtype, np.floating):
            _refuse(NotFiniteError, f"the decoder of stream {stream} gave NaN or infinite numbers", ~is_finite(output))
        elif output.dtype == np.uint8:
            constant = np.array([_is_constant(row) for row in output], dtype=np.bool_)
            _refuse(DegenerateOutputError, f"the decoder of stream {stream} gave one value everywhere, as NaN becomes,", constant)


def _is_constant(row: npt.NDArray[np.generic]) -> bool:
    values = row.reshape(-1)
    sample = values[:: max(1, values.size // SAMPLED_VALUES)]
    return bool((sample == values[0]).all() and (values == values[0]).all())


def _refuse(error: type[DegenerateOutputError], found: str, rows: npt.NDArray[np.bool_]) -> None:
    if rows.any():
        names = ", ".join(str(row) for row in np.flatnonzero(rows))
        raise error(f"{found} for request {names} of the batch; no picture was made. {CURE}")
