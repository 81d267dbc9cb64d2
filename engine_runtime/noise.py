"""The noise a picture starts from: the same on every machine for the same seed, whatever the batch it is drawn in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffusion_api.engine_manifest import ShapePlan
from engine_runtime.seeds import MAX_SEED


def initial_latents(plan: ShapePlan, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Draw standard normal latents for one request.

    Args:
        plan: The output size; `latents` gives each stream's axes without batch.
        seed: 0 to `MAX_SEED`.

    Returns:
        FP32 latents by stream, without batch axis. A stream's noise depends on the seed and the stream's name alone.

    Raises:
        ValueError: The seed is out of range.

    Source: Philox4x64-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; streams by numpy's SeedSequence.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is out of range; use 0 to {MAX_SEED}")
    return {name: _normal(seed, name, shape) for name, shape in plan.latents.items()}


def _normal(seed: int, stream: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    sequence = np.random.SeedSequence(seed, spawn_key=tuple(stream.encode()))
    generator = np.random.Generator(np.random.Philox(sequence))
    # Drawn in FP64 and rounded: a last-bit difference between two machines' logarithms does not survive.
    return generator.standard_normal(shape).astype(np.float32)
