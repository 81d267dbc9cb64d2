"""The code of `make bench-true-size` at a tiny size: the same stages, all formats, TensorRT-RTX for compute capability 12.0."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks.true_size import compilation, stages
from benchmarks.true_size.checkpoint import write_checkpoint
from benchmarks.true_size.processes import run_measured
from benchmarks.true_size.sizes import PIECES, Bench, Facts, ModelSize
from engine_builder.families.flux2.variant import KLEIN
from engine_builder.families.registry import family_for

TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 27,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
TINY = ModelSize(
    blocks=1, single_blocks=1, heads=2, head_dim=64, text=TEXT, vae_channels=(32, 64), vae_latents=8, vae_layers=1, vae_groups=8
)
FORMATS = ("None", "FP8", "NVFP4")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(TINY, tmp_path_factory.mktemp("true-size"))


@pytest.fixture(scope="session")
def engines(checkpoint, tmp_path_factory) -> dict[str, dict[str, dict[str, Facts]]]:
    """Facts by format, stage and component. Of the text encoder's 27 layers, which take half a minute each time, three are traced."""
    with pytest.MonkeyPatch.context() as patch:
        family = family_for(checkpoint)
        patch.setattr(family, "variant", replace(KLEIN, text_layers=(1, 2, 3)))
        return build(checkpoint, tmp_path_factory)


def build(checkpoint: Path, tmp_path_factory) -> dict[str, dict[str, dict[str, Facts]]]:
    facts: dict[str, dict[str, dict[str, Facts]]] = {}
    for name in FORMATS:
        work = tmp_path_factory.mktemp(name)
        bench = Bench(str(checkpoint), str(work), name, side=32, text_tokens=32, calibration_side=16, calibration_text_tokens=32)
        done = facts[name] = {"quantize": {}, "export": {}, "compile": {}}
        for component in PIECES:
            if bench.quantizes:
                done["quantize"][component] = stages.quantize(bench, component)
            done["export"][component] = stages.export(bench, component)
            done["compile"][component] = compilation.compile_piece(bench, component)
    return facts


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("component", PIECES)
def test_every_component_compiles_in_every_format(engines, name, component):
    assert engines[name]["compile"][component]["bytes"] > 0


@pytest.mark.parametrize("name", ["FP8", "NVFP4"])
@pytest.mark.parametrize("component", PIECES)
def test_every_component_is_quantized_and_smaller(engines, name, component):
    facts = engines[name]
    layers = facts["quantize"][component]["quantized"]
    assert 0 < layers < facts["export"][component]["quantizers"] <= 2 * layers  # Layers with one input share its quantizer.
    assert facts["export"][component]["bytes"] < engines["None"]["export"][component]["bytes"]


def test_the_random_checkpoint_has_no_equal_weights(checkpoint):
    """TensorRT keeps equal weights once, which would make every file too small."""
    with safe_open(checkpoint / "transformer/diffusion_pytorch_model.safetensors", framework="pt") as file:
        matrices = [file.get_tensor(name) for name in file.keys() if file.get_tensor(name).ndim == 2]  # noqa: SIM118 - no mapping
    assert all(not torch.equal(a, b) for i, a in enumerate(matrices) for b in matrices[:i] if a.shape == b.shape)


def test_a_complete_checkpoint_is_kept(checkpoint):
    before = (checkpoint / "model_index.json").stat().st_mtime_ns
    assert write_checkpoint(TINY, checkpoint.parent) == checkpoint
    assert (checkpoint / "model_index.json").stat().st_mtime_ns == before


def test_a_stage_is_measured_in_a_process_of_its_own(checkpoint, engines, tmp_path):
    graphs = tmp_path / "graphs/vae"
    stages.export(Bench(str(checkpoint), str(tmp_path), "None", side=32, text_tokens=32), "vae")
    assert json.loads((graphs / "graphs.json").read_text())
    values = {"checkpoint": str(checkpoint), "work": str(tmp_path), "format": "None", "side": 32, "text_tokens": 32}
    measured = run_measured("compile vae_decoder", "compile", [values, "vae"])
    assert not measured.failure
    assert measured.facts["bytes"] == engines["None"]["compile"]["vae"]["bytes"]
    assert measured.peak_bytes >= measured.peak_anonymous_bytes > 50 * 2**20
    assert measured.seconds > 0 < measured.cpu_seconds


def test_a_stage_that_dies_is_a_failure_and_not_an_exception(tmp_path, capfd):
    measured = run_measured("nothing", "frobnicate", [])
    assert measured.failure == "exit code 1"
    assert "no stage frobnicate" in capfd.readouterr().err
