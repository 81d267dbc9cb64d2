"""The optimizer loop that all three stages share, and its learning rate."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # As everyone writes it.
from torch import nn

GRADIENT_NORM = 1.0
BETAS = (0.9, 0.95)
EMA_DECAY = 0.995
LOG_EVERY = 100


class Batch(NamedTuple):
    """One training batch of the transformer."""

    inputs: dict[str, torch.Tensor]
    """Keyword arguments of its `forward`."""
    target: torch.Tensor
    """Velocity, FP32 [B, tokens, channels]."""


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the rate of a step counted from 1: linear warm-up, constant to half of the steps, then a cosine to 0."""
    cosine = 1.0 if step < 0.5 * steps else 0.5 + 0.5 * math.cos(math.pi * (2 * step / steps - 1))
    return peak * min(1.0, step / warmup) * cosine


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """Take one step with clipped gradients."""
    group = optimizer.param_groups[0]
    group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped.
    nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM)
    optimizer.step()


def fit_transformer(network: nn.Module, sample: Callable[[], Batch], steps: int, *, peak: float, stage: str) -> nn.Module:
    """Train in place and return the exponential moving average, in `eval()` mode."""
    log = TrainingLog(stage, steps)
    network.train()
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, betas=BETAS, weight_decay=0.01)
    for step in range(1, steps + 1):
        batch = sample()
        loss = F.mse_loss(network(**batch.inputs, return_dict=False)[0], batch.target)
        descend(optimizer, loss, learning_rate(step, steps, peak, warmup=100) + 1e-6)
        _follow(average, network, min(EMA_DECAY, (step + 1) / (step + 10)))
        log.note(step, loss.item())
    return average


class TrainingLog:
    """Prints the smoothed loss now and then."""

    def __init__(self, stage: str, steps: int) -> None:
        self._stage, self._steps, self._start = stage, steps, time.perf_counter()
        self._mean: float | None = None

    def note(self, step: int, loss: float) -> None:
        """Count a step."""
        self._mean = loss if self._mean is None else 0.98 * self._mean + 0.02 * loss
        if step % LOG_EVERY == 0 or step == self._steps:
            print(f"{self._stage} {step}/{self._steps} loss {self._mean:.4f} {time.perf_counter() - self._start:.0f} s", flush=True)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
