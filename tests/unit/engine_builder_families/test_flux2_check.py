"""Checkpoints and jobs that must be refused before anything is loaded, each with a sentence that names the cure."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_api.model_spec import Sampling, Shape
from engine_builder.errors import InvalidJobError, InvalidModelError, UnsafeModelError
from engine_builder.families.registry import family_for, known_families

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits-klein"
SAMPLING = Sampling(max_sequence_length=16)
SHAPES = (Shape(width=64, height=64),)
WEIGHTS = "diffusion_pytorch_model.safetensors"

Damage = Callable[[Path], None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(DIGITS, tmp_path / "model")
    return tmp_path / "model"


def edited(file: str, **changes: Any) -> Damage:
    def damage(model: Path) -> None:
        path = model / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def removed(name: str) -> Damage:
    def damage(model: Path) -> None:
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(name: str, size: int) -> Damage:
    def damage(model: Path) -> None:
        (model / name).write_bytes((model / name).read_bytes()[:size])

    return damage


def header_edited(name: str, change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(model: Path) -> None:
        raw = (model / name).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (model / name).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return damage


def quantized(header: dict[str, Any]) -> None:
    header["proj_out.weight"]["dtype"] = "F8_E4M3"


def misshapen(header: dict[str, Any]) -> None:
    header["proj_out.weight"]["shape"] = [128, 16]


def without_a_block(header: dict[str, Any]) -> None:
    header["elsewhere"] = header.pop("single_transformer_blocks.1.attn.to_out.weight")


def pickled(model: Path) -> None:
    (model / "transformer" / WEIGHTS).rename(model / "transformer" / "diffusion_pytorch_model.bin")


def sharded_with_a_lost_shard(model: Path) -> None:
    (model / "vae" / WEIGHTS).unlink()
    index = {"weight_map": {"decoder.conv_in.weight": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (model / "vae" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def with_a_shard_outside(model: Path) -> None:
    (model / "vae" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"x": "../../secret.safetensors"}}))


def without_pad_token(model: Path) -> None:
    edited("tokenizer/tokenizer_config.json", pad_token=None)(model)


def with_template(text: str) -> Damage:
    def damage(model: Path) -> None:
        (model / "tokenizer" / "chat_template.jinja").write_text(text)

    return damage


DAMAGES: list[tuple[Damage, str]] = [
    (removed("vae"), "component vae is missing"),
    (edited("model_index.json", text_encoder=["transformers", "T5EncoderModel"]), "text_encoder is a T5EncoderModel; supported: Qwen3"),
    (edited("model_index.json", transformer=[None, None]), "component transformer is missing"),
    (removed("transformer/config.json"), r"transformer/config\.json is missing"),
    (cut("vae/config.json", 40), r"vae/config\.json is not JSON"),
    (removed(f"transformer/{WEIGHTS}"), "fully downloaded"),
    (cut(f"transformer/{WEIGHTS}", 5), "truncated"),
    (cut(f"transformer/{WEIGHTS}", 300), "truncated"),
    (cut(f"transformer/{WEIGHTS}", 100_000), "its header promises"),
    (cut("text_encoder/model.safetensors", 100_000), "text_encoder/model.safetensors has 100000 bytes"),
    (header_edited(f"transformer/{WEIGHTS}", quantized), "proj_out.weight is F8_E4M3; give the unquantized"),
    (header_edited(f"transformer/{WEIGHTS}", misshapen), r"proj_out.weight has shape \[128, 16\]"),
    (header_edited(f"transformer/{WEIGHTS}", without_a_block), r"single_transformer_blocks\.1\.attn\.to_out\.weight missing"),
    (edited("transformer/config.json", num_layers=3), r"transformer_blocks\.2\.attn\.to_q\.weight.* and \d+ more missing"),
    (edited("transformer/config.json", axes_dims_rope=[8, 8, 8]), "axes_dims_rope"),
    (edited("transformer/config.json", in_channels=20), "four times the vae's latent_channels 4"),
    (edited("transformer/config.json", patch_size=2), "patch_size: Input should be 1"),
    (edited("transformer/config.json", out_channels=8), "out_channels 8 must equal in_channels 16"),
    (edited("transformer/config.json", num_layers="many"), "transformer/config.json: num_layers: Input should be a valid integer"),
    (edited("transformer/config.json", num_layers=10**12), "less than or equal to 1000"),
    (edited("text_encoder/config.json", hidden_size=64), "joint_attention_dim 96 must be 3 times"),
    (edited("text_encoder/config.json", num_hidden_layers=12), "12 layers, but the conditions come from layer 27"),
    (edited("text_encoder/config.json", vocab_size=None), r"text_encoder/config\.json: vocab_size: Field required"),
    (edited("scheduler/scheduler_config.json", _class_name="DDIMScheduler"), "DDIMScheduler is not supported"),
    (edited("scheduler/scheduler_config.json", use_karras_sigmas=True), "use_karras_sigmas is not supported"),
    (removed("tokenizer/tokenizer.json"), r"tokenizer\.json is missing"),
    (cut("tokenizer/tokenizer.json", 500), r"tokenizer\.json cannot be read"),
    (removed("tokenizer/chat_template.jinja"), "no chat template"),
    (with_template("{% for %}"), "chat template fails"),
    (with_template("{{ messages[0].content.__class__.__mro__ }}"), "chat template"),
    (with_template("hello"), "does not hold the prompt exactly once"),
    (without_pad_token, "no padding token"),
    (sharded_with_a_lost_shard, "00001-of-00001.safetensors is missing"),
    (with_a_shard_outside, "no proper weight_map"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(model: Path, damage: Damage, sentence: str) -> None:
    damage(model)
    with pytest.raises(InvalidModelError, match=sentence):
        family_for(model).check(model, SAMPLING, SHAPES)


def test_pickled_weights_are_refused_as_unsafe(model: Path) -> None:
    pickled(model)
    with pytest.raises(UnsafeModelError, match="convert it to safetensors"):
        family_for(model).check(model, SAMPLING, SHAPES)


def test_a_folder_without_model_index_is_no_diffusers_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="not a diffusers folder"):
        family_for(tmp_path)


def test_an_unknown_architecture_lists_the_known_ones(model: Path) -> None:
    edited("model_index.json", _class_name="StableDiffusionPipeline")(model)
    with pytest.raises(InvalidModelError, match=r"no family takes a StableDiffusionPipeline; known families: .*flux2-klein"):
        family_for(model)


@pytest.mark.parametrize(
    ("sampling", "shapes", "sentence"),
    [
        (Sampling(max_sequence_length=16, guidance_scale=4.0), SHAPES, "step-distilled; leave it out"),
        (Sampling(max_sequence_length=16, sigmas=(1.0, 0.0)), SHAPES, "leave the final 0 out"),
        (Sampling(max_sequence_length=513), SHAPES, "more than the text encoder takes; use at most 512"),
        (Sampling(max_sequence_length=2), SHAPES, "leaves no room for a prompt: the chat template takes"),
        (SAMPLING, (), "shapes is empty"),
        (SAMPLING, SHAPES * 2, "names a size twice"),
        (SAMPLING, (Shape(width=64, height=64, frames=9, frames_per_second=24),), "has frames"),
    ],
)
def test_a_job_that_the_checkpoint_cannot_do_is_refused(sampling: Sampling, shapes: tuple[Shape, ...], sentence: str) -> None:
    with pytest.raises(InvalidJobError, match=sentence):
        family_for(DIGITS).check(DIGITS, sampling, shapes)


def test_a_coarser_vae_asks_for_larger_multiples(model: Path) -> None:
    edited("vae/config.json", block_out_channels=[16] * 5)(model)
    with pytest.raises(InvalidJobError, match="multiples of 32"):
        family_for(model).manifest(model, SAMPLING, (Shape(width=80, height=64),), 8)


def test_an_attention_window_bounds_the_prompt(model: Path) -> None:
    edited("text_encoder/config.json", use_sliding_window=True, sliding_window=8)(model)
    with pytest.raises(InvalidJobError, match="attention window takes; use at most 8"):
        family_for(model).check(model, SAMPLING, SHAPES)


def test_sensitive_layers_are_named_for_each_component() -> None:
    family = family_for(DIGITS)
    assert "*modulation*" in family.sensitive_layers("transformer")
    assert family.sensitive_layers("vae")
    assert family.sensitive_layers("connectors") == ()


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from diffusion_api.model_spec import Sampling, Shape\n"
        "from engine_builder.families.registry import family_for\n"
        f"folder = Path({str(DIGITS)!r}); family = family_for(folder)\n"
        "job = (folder, Sampling(max_sequence_length=16), [Shape(width=64, height=64)])\n"
        "family.check(*job); family.manifest(*job, 8); family.prompts(folder)\n"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules), 'a planning module imports them'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_new_module_with_families_is_found_without_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine_builder import families  # noqa: PLC0415

    (tmp_path / "toy_family.py").write_text(
        "class Toy:\n    name = 'toy'\n    def matches(self, index):\n        return index.get('_class_name') == 'ToyPipeline'\n"
        "FAMILIES = (Toy(),)\n"
    )
    (tmp_path / "model_index.json").write_text('{"_class_name": "ToyPipeline"}')
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    known_families.cache_clear()
    try:
        assert family_for(tmp_path).name == "toy"
    finally:
        known_families.cache_clear()
        sys.modules.pop("engine_builder.families.toy_family", None)
