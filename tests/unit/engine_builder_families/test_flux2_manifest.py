"""What a manifest says of a FLUX.2 checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diffusion_api.engine_manifest import EngineManifest, GuidanceMode
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.errors import InvalidModelError
from engine_builder.families.registry import family_for

ROOT = Path(__file__).parents[3]
STUDENT = ROOT / "examples" / "digits" / "digits-klein"
TEACHER = ROOT / "tests" / "models" / "digits-teacher"
SQUARE = (Shape(width=64, height=64),)


def manifest(folder: Path, shapes: tuple[Shape, ...] = SQUARE, **sampling: object) -> EngineManifest:
    settings = Sampling.model_validate({"max_sequence_length": 16, **sampling})
    return family_for(folder).manifest(folder, settings, shapes, max_batch_size=3)


def test_a_student_takes_four_steps_without_guidance() -> None:
    result = manifest(STUDENT)
    assert result.family == "flux2-klein"
    assert result.shapes[0].sigmas == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert result.guidance.mode is GuidanceMode.NONE
    assert result.max_batch_size == 3
    assert result.pieces == {}


def test_a_teacher_takes_fifty_steps_with_guidance_by_default() -> None:
    result = manifest(TEACHER)
    assert len(result.shapes[0].sigmas) == 51
    assert (result.guidance.mode, result.guidance.scale) == (GuidanceMode.CLASSIFIER_FREE, 4.0)


def test_a_teacher_without_guidance_is_evaluated_once_a_step() -> None:
    assert manifest(TEACHER, guidance_scale=1.0).guidance.mode is GuidanceMode.NONE


def test_explicit_noise_levels_are_used_as_they_are() -> None:
    assert manifest(STUDENT, sigmas=(0.9, 0.4)).shapes[0].sigmas == (0.9, 0.4, 0.0)


def test_each_shape_has_its_own_schedule_where_shifting_is_dynamic(tmp_path: Path) -> None:
    shutil.copytree(STUDENT, tmp_path / "model")
    path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dynamic_shifting": True}))
    small, large = manifest(tmp_path / "model", (Shape(width=64, height=64), Shape(width=1024, height=1024))).shapes
    assert all(a < b for a, b in zip(small.sigmas[1:-1], large.sigmas[1:-1], strict=True)), "larger pictures keep more noise"


def test_sizes_of_a_shape_follow_from_the_configuration() -> None:
    plan = manifest(STUDENT, (Shape(width=128, height=32),)).shapes[0]
    assert plan.latents == {"image": (16, 16)}
    assert (plan.dims["latent_height"], plan.dims["latent_width"]) == (2, 8)
    assert plan.dims["tokens"] == plan.dims["image_tokens"] + plan.dims["text_tokens"] == 32
    assert plan.constants == {"position_ids": "position_ids_128x32"}


def test_the_template_is_rendered_around_the_prompt() -> None:
    text = manifest(STUDENT).text
    assert text.template_prefix == "<|im_start|>user\n"
    assert text.template_suffix == "<|im_end|>\n<|im_start|>assistant\n"
    assert (text.padding_side, text.pad_token_id) == ("right", 344)
    assert text.outputs == {"prompt_embeds": "encoder_hidden_states"}


@pytest.mark.parametrize("folder", [STUDENT, TEACHER])
def test_a_checkpoint_brings_its_own_calibration_prompts(folder: Path) -> None:
    prompts = family_for(folder).prompts(folder)
    assert len(set(prompts)) == 60
    assert all(any(digit in prompt for prompt in prompts) for digit in ("seven", "7"))


def test_the_built_in_prompts_are_many_and_different(tmp_path: Path) -> None:
    assert len(set(family_for(STUDENT).prompts(tmp_path))) == 64


def test_an_empty_prompt_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "calibration_prompts.txt").write_text("\n \n")
    with pytest.raises(InvalidModelError, match="holds no prompt"):
        family_for(STUDENT).prompts(tmp_path)
