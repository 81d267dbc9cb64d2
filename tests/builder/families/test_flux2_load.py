"""Loading: types, a student laid over the transformer, and checkpoints that must not load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from safetensors.torch import load_file, save_file

from diffusion_api.model_spec import Sampling, Shape
from engine_builder.errors import InvalidModelError
from engine_builder.families.flow_schedule import flow_sigmas
from engine_builder.families.flux2 import plan, variant
from engine_builder.families.flux2.checkpoint import read_checkpoint, transformer_tensors
from engine_builder.families.registry import family_for, family_named

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tensors(student: Path) -> dict[str, torch.Tensor]:
    return load_file(student / "transformer" / WEIGHTS)


def test_components_load_in_the_asked_type_without_gradients(student: Path) -> None:
    model = family_for(student).load(student, torch.bfloat16)
    assert set(model.components) == {"transformer", "textEncoder", "vae"}
    for component in model.components.values():
        assert not component.training
        assert {p.dtype for p in component.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in component.parameters())
    assert model.config["is_distilled"] is True


def test_a_student_replaces_the_transformers_weights(student: Path, teacher: Path, tensors: dict[str, torch.Tensor]) -> None:
    model = family_for(teacher).load(teacher, torch.float32, student / "transformer" / WEIGHTS)
    name = "single_transformer_blocks.1.attn.to_out.weight"
    assert torch.equal(model.components["transformer"].state_dict()[name], tensors[name].float())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("drop", "lacks proj_out.weight"),
        ("add", "has stranger.weight"),
        ("reshape", "other shapes .* proj_out.weight"),
        ("cut", "cannot be read"),
    ],
)
def test_a_student_that_does_not_fit_is_refused_by_name(
    teacher: Path, tensors: dict[str, torch.Tensor], tmp_path: Path, change: str, sentence: str
) -> None:
    changed, path = dict(tensors), tmp_path / "student.safetensors"
    match change:
        case "drop":
            del changed["proj_out.weight"]
        case "add":
            changed["stranger.weight"] = torch.zeros(1)
        case "reshape":
            changed["proj_out.weight"] = torch.zeros(3, 3)
    save_file(changed, path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidModelError, match=sentence):
        family_for(teacher).load(teacher, torch.float32, path)


def test_weights_missing_from_the_vae_are_an_error_not_random_numbers(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(student, folder)
    tensors = load_file(folder / "vae" / WEIGHTS)
    del tensors["decoder.mid_block.resnets.0.conv1.weight"]
    save_file(tensors, folder / "vae" / WEIGHTS)
    with pytest.raises(InvalidModelError, match=r"vae: decoder\.mid_block\.resnets\.0\.conv1\.weight missing"):
        family_for(folder).load(folder, torch.float32)


@pytest.mark.parametrize("checkpoint", ["student", "tiny_klein", "tiny_dev"])
def test_the_expected_tensors_are_those_of_the_real_class(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(checkpoint)
    family = variant.DEV if checkpoint == "tiny_dev" else variant.KLEIN
    config = Flux2Transformer2DModel.load_config(folder / "transformer", local_files_only=True)
    with torch.device("meta"):
        real = Flux2Transformer2DModel.from_config(config)
    expected = transformer_tensors(read_checkpoint(folder, family).transformer)
    assert expected == {name: tuple(tensor.shape) for name, tensor in real.state_dict().items()}


@pytest.mark.parametrize("checkpoint", ["student", "teacher", "tiny_klein", "tiny_dev"])
def test_good_checkpoints_pass_the_check(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(checkpoint)
    length = 200 if checkpoint == "tiny_dev" else 24
    family_for(folder).check(folder, Sampling(max_sequence_length=length), (Shape(width=32, height=64),))


@pytest.mark.parametrize("tokens", [16, 1024, 4096, 4300, 8192])
@pytest.mark.parametrize("steps", [2, 4, 28, 50])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    ],
)
def test_noise_levels_equal_the_schedulers(config: dict[str, object], tokens: int, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    levels = [1 - i / steps for i in range(steps)]
    mu = plan.empirical_mu(tokens, steps)
    assert mu == pytest.approx(compute_empirical_mu(tokens, steps))
    scheduler.set_timesteps(sigmas=levels, mu=mu)
    assert flow_sigmas(config, levels, mu) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)


def test_devs_system_message_is_diffusers_own() -> None:
    assert variant.DEV.messages[0]["content"][0]["text"] == SYSTEM_MESSAGE


def test_an_unknown_family_name_lists_those_there_are() -> None:
    assert family_named("flux2-dev").name == "flux2-dev"
    with pytest.raises(InvalidModelError, match=r"known families: .*flux2-dev"):
        family_named("flux9")
