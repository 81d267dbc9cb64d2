"""Stage 3: the student regresses the guided teacher's stored trajectories, so that four steps without guidance suffice.

Between two of its own noise levels the student's velocity is the teacher's mean one: (x_k − x_{k+1}) / (sigma_k − sigma_{k+1}).
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from diffusers import Flux2KleinPipeline
from torch import nn

from examples.digits.training.optimize import Batch, fit_transformer
from examples.digits.training.pictures import Conditions, encode_conditions
from examples.digits.training.pipeline import IMAGE_TOKENS, TOKEN_CHANNELS
from examples.digits.vocabulary import COLORS, TEMPLATES

BATCH = 64
PEAK_RATE = 6e-4
STUDENT_STEPS = 4
TEACHER_STEPS = 16
AT_ONCE = 120
"""Trajectories of one batch: two of each colour and digit."""


@dataclass(frozen=True)
class Trajectories:
    """The teacher's states at the student's noise levels."""

    states: torch.Tensor
    """FP32 [steps + 1, N, tokens, channels], from noise to picture."""
    embeddings: torch.Tensor
    """FP32 [N, T, D]."""


def distil(pipeline: Flux2KleinPipeline, steps: int, *, trajectories: int, guidance: float) -> nn.Module:
    """Return the student of the pipeline's transformer, which is left as it is."""
    conditions = encode_conditions(pipeline)
    teacher = pipeline.transformer.eval()
    taught = _record(teacher, conditions, trajectories, guidance)

    def sample() -> Batch:
        return _batch(taught, conditions)

    return fit_transformer(copy.deepcopy(teacher), sample, steps, peak=PEAK_RATE, stage="student")


@torch.no_grad()
def solve(network: nn.Module, noise: torch.Tensor, embeddings: torch.Tensor, conditions: Conditions, *, guidance: float) -> torch.Tensor:
    """Follow the teacher from noise to picture with Euler's method.

    Args:
        network: The teacher.
        noise: FP32 [B, tokens, channels].
        embeddings: FP32 [B, T, D].
        conditions: Ids, and the empty prompt for guidance.
        guidance: Scale; 1 is none.

    Returns:
        States at the student's noise levels [steps + 1, B, tokens, channels].
    """
    sigmas, state, states = torch.linspace(1, 0, TEACHER_STEPS + 1), noise, [noise]
    for step in range(TEACHER_STEPS):
        common = {"timestep": sigmas[step].expand(len(state)), "img_ids": conditions.image_ids, "txt_ids": conditions.text_ids}
        velocity = network(hidden_states=state, encoder_hidden_states=embeddings, **common, return_dict=False)[0]
        if guidance > 1:
            empty = conditions.empty.expand_as(embeddings)
            unguided = network(hidden_states=state, encoder_hidden_states=empty, **common, return_dict=False)[0]
            velocity = unguided + guidance * (velocity - unguided)
        state = state + (sigmas[step + 1] - sigmas[step]) * velocity
        if (step + 1) % (TEACHER_STEPS // STUDENT_STEPS) == 0:
            states.append(state)
    return torch.stack(states)


def _record(teacher: nn.Module, conditions: Conditions, count: int, guidance: float) -> Trajectories:
    start, states, embeddings = time.perf_counter(), [], []
    at_once = min(AT_ONCE, count)
    for _ in range(count // at_once):
        template, index = torch.randint(len(TEMPLATES), (at_once,)), torch.arange(at_once)
        chosen = conditions.embeddings[template, index % len(COLORS), index // len(COLORS) % 10]
        noise = torch.randn(at_once, IMAGE_TOKENS, TOKEN_CHANNELS)
        states.append(solve(teacher, noise, chosen, conditions, guidance=guidance))
        embeddings.append(chosen)
    taught = Trajectories(torch.cat(states, 1), torch.cat(embeddings))
    print(f"trajectories {taught.states.shape[1]} {time.perf_counter() - start:.0f} s", flush=True)
    return taught


def _batch(taught: Trajectories, conditions: Conditions) -> Batch:
    row = torch.randint(taught.states.shape[1], (BATCH,))
    step = torch.randint(STUDENT_STEPS, (BATCH,))
    begin, end = taught.states[step, row], taught.states[step + 1, row]
    inputs = {
        "hidden_states": begin,
        "encoder_hidden_states": taught.embeddings[row],
        "timestep": torch.linspace(1, 0, STUDENT_STEPS + 1)[step],
        "img_ids": conditions.image_ids,
        "txt_ids": conditions.text_ids,
    }
    return Batch(inputs, (begin - end) * STUDENT_STEPS)
