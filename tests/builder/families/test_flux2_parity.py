"""The graphs and the manifest together draw what diffusers' pipelines draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from diffusion_api.engine_manifest import GuidanceMode
from diffusion_api.model_spec import Sampling, Shape
from tests.builder.families.generate import Generator

PROMPTS = ["a red digit seven", "blue 3"]


def pipeline_pictures(folder: Path, noise: torch.Tensor, **arguments: Any) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(prompt=PROMPTS, latents=noise, output_type="np", **arguments).images
    return (images * 255).round().astype(np.uint8)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def assert_same_pictures(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert ours.std() > 1, "a constant picture proves nothing"
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_the_distilled_student_draws_what_diffusers_draws(student: Path) -> None:
    generator = Generator(student, Sampling(max_sequence_length=16), Shape(width=64, height=64))
    assert generator.manifest.guidance.mode is GuidanceMode.NONE
    start = noise(2, 16, 4, 4)
    theirs = pipeline_pictures(student, start, height=64, width=64, max_sequence_length=16, num_inference_steps=4, guidance_scale=1.0)
    assert_same_pictures(generator.pictures(PROMPTS, start), theirs)


def test_the_teacher_draws_with_classifier_free_guidance(teacher: Path) -> None:
    generator = Generator(teacher, Sampling(steps=3, guidance_scale=2.0, max_sequence_length=16), Shape(width=64, height=32))
    assert generator.manifest.guidance.mode is GuidanceMode.CLASSIFIER_FREE
    start = noise(2, 16, 2, 4)
    theirs = pipeline_pictures(teacher, start, height=32, width=64, max_sequence_length=16, num_inference_steps=3, guidance_scale=2.0)
    assert_same_pictures(generator.pictures(PROMPTS, start), theirs)


def test_dev_draws_with_embedded_guidance_and_left_padding(tiny_dev: Path) -> None:
    generator = Generator(tiny_dev, Sampling(steps=3, guidance_scale=2.5, max_sequence_length=200), Shape(width=32, height=16))
    assert generator.manifest.guidance.mode is GuidanceMode.EMBEDDED
    start = noise(2, 8, 4, 8)
    theirs = pipeline_pictures(tiny_dev, start, height=16, width=32, max_sequence_length=200, num_inference_steps=3, guidance_scale=2.5)
    assert_same_pictures(generator.pictures(PROMPTS, start), theirs)


def test_embedded_guidance_changes_the_velocity(tiny_dev: Path) -> None:
    shape = Shape(width=16, height=16)
    weak, strong = (Generator(tiny_dev, Sampling(guidance_scale=scale, max_sequence_length=200), shape) for scale in (1.0, 4.0))
    x, conditions = noise(1, 16, 8), weak.encode(PROMPTS[:1])
    assert not torch.equal(weak.velocity(x, conditions, 0.5), strong.velocity(x, conditions, 0.5))


@pytest.mark.parametrize(("checkpoint", "length"), [("tiny_klein", 64), ("tiny_klein", 24), ("tiny_dev", 230), ("tiny_dev", 190)])
def test_conditions_equal_the_pipelines_also_where_prompts_are_cut(checkpoint: str, length: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(checkpoint)
    generator = Generator(folder, Sampling(max_sequence_length=length), Shape(width=16, height=16))
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    theirs, _ = pipeline.encode_prompt(PROMPTS, max_sequence_length=length)
    torch.testing.assert_close(generator.encode(PROMPTS), theirs, rtol=1e-5, atol=1e-5)


def test_rows_of_a_batch_may_have_other_positions(student: Path) -> None:
    sampling = Sampling(max_sequence_length=16)
    wide, tall = (Generator(student, sampling, shape) for shape in (Shape(width=128, height=32), Shape(width=32, height=128)))
    prelude = wide.run(
        "transformer_prelude",
        hidden_states=noise(2, 16, 16),
        encoder_hidden_states=noise(2, 16, 96),
        timestep=torch.tensor([1.0, 0.25]),
    )
    ids = torch.stack([wide.constants["position_ids_128x32"], tall.constants["position_ids_32x128"]])
    mixed = wide.run("transformer_body", **prelude, position_ids=ids)["y"]
    for row in range(2):
        alone = wide.run("transformer_body", **{name: value[row : row + 1] for name, value in prelude.items()}, position_ids=ids[row, None])
        torch.testing.assert_close(mixed[row, None], alone["y"], rtol=1e-5, atol=1e-5)
        sample = wide.run("transformer_head", y=alone["y"], temb=prelude["temb"][row, None])["sample"]
        theirs = _diffusers_sample(student, row, ids[row])
        torch.testing.assert_close(sample, theirs, rtol=1e-5, atol=1e-5)
    swapped = wide.run("transformer_body", **prelude, position_ids=ids.flip(0))["y"]
    assert (swapped - mixed).abs().max() > 1e-3, "positions must matter"


def _diffusers_sample(folder: Path, row: int, ids: torch.Tensor) -> torch.Tensor:
    transformer = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32).transformer
    with torch.no_grad():
        sample: torch.Tensor = transformer(
            hidden_states=noise(2, 16, 16)[row, None],
            encoder_hidden_states=noise(2, 16, 96)[row, None],
            timestep=torch.tensor([[1.0], [0.25]])[row],
            txt_ids=ids[:16],
            img_ids=ids[16:],
            return_dict=False,
        )[0]
    return sample


def test_the_component_itself_still_draws_the_same_after_its_attention_was_replaced(student: Path) -> None:
    generator = Generator(student, Sampling(max_sequence_length=16), Shape(width=64, height=64))
    x, conditions = noise(1, 16, 16), generator.encode(PROMPTS[:1])
    ids = generator.constants["position_ids_64x64"]
    with torch.no_grad():
        own = generator.model.components["transformer"](
            hidden_states=x, encoder_hidden_states=conditions, timestep=torch.tensor([0.5]), txt_ids=ids[:16], img_ids=ids[16:]
        ).sample
    torch.testing.assert_close(generator.velocity(x, conditions, 0.5), own, rtol=1e-5, atol=1e-5)


def test_bf16_graphs_keep_fp32_borders_and_stay_close(student: Path) -> None:
    sampling, shape = Sampling(max_sequence_length=16), Shape(width=64, height=64)
    full, half = (Generator(student, sampling, shape, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert next(half.graphs["transformer_body"].module.parameters()).dtype is torch.bfloat16
    start = noise(2, 16, 4, 4)
    x, conditions = start.flatten(2).transpose(1, 2), full.encode(PROMPTS)
    exact, rounded = (generator.velocity(x, conditions, 0.75) for generator in (full, half))
    assert rounded.dtype is torch.float32
    assert (exact - rounded).norm() / exact.norm() < 0.03
    difference = full.pictures(PROMPTS, start).astype(int) - half.pictures(PROMPTS, start).astype(int)
    assert np.abs(difference).mean() < 12


def test_rotary_tables_stay_fp32_when_the_graph_is_converted(student: Path) -> None:
    body = Generator(student, Sampling(max_sequence_length=16), Shape(width=64, height=64)).graphs["transformer_body"].module
    ids = torch.full((1, 1, 4), 301.0)
    before = body.rotary(ids)
    after = body.to(torch.bfloat16).rotary(ids)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
