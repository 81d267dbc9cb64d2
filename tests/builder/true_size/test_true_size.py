"""The code of `make bench-true-size` at a tiny size: the same stages and formats, TensorRT-RTX for compute capability 12.0."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
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
BUILDS = {"None": ("vae",), "FP8": ("vae",), "NVFP4": ("textEncoder", "transformer")}
"""Components by format: each of either goes all the way. Tracing is what takes long, and no format changes it."""
CODES = {"FP8": TensorProto.FLOAT8E4M3FN, "NVFP4": TensorProto.FLOAT4E2M1}
BUILT = [(name, component) for name, components in BUILDS.items() for component in components]


@dataclass(frozen=True)
class Built:
    """Facts by stage and component."""

    bench: Bench
    quantize: dict[str, Facts] = field(default_factory=dict)
    export: dict[str, Facts] = field(default_factory=dict)
    compile: dict[str, Facts] = field(default_factory=dict)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(TINY, tmp_path_factory.mktemp("true-size"))


@pytest.fixture(scope="session")
def engines(checkpoint, tmp_path_factory) -> dict[str, Built]:
    """What was built, by format. Of the text encoder's 27 layers, which take half a minute to trace, three are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family_for(checkpoint), "variant", replace(KLEIN, text_layers=(1, 2, 3)))
        return {name: build(checkpoint, tmp_path_factory.mktemp(name), name) for name in BUILDS}


def build(checkpoint: Path, work: Path, name: str) -> Built:
    bench = Bench(str(checkpoint), str(work), name, side=32, text_tokens=32, calibration_side=16, calibration_text_tokens=32)
    built = Built(bench)
    for component in BUILDS[name]:
        if bench.quantizes:
            built.quantize[component] = stages.quantize(bench, component)
        built.export[component] = stages.export(bench, component)
        built.compile[component] = compilation.compile_piece(bench, component)
    return built


@pytest.mark.parametrize(("name", "component"), BUILT)
def test_a_component_is_compiled(engines, name, component):
    assert engines[name].compile[component]["bytes"] > 0


@pytest.mark.parametrize(("name", "component"), [each for each in BUILT if each[0] != "None"])
def test_a_component_is_quantized(engines, name, component):
    layers = engines[name].quantize[component]["quantized"]
    assert 0 < layers < engines[name].export[component]["quantizers"] <= 2 * layers  # Layers with one input share its quantizer.


@pytest.mark.parametrize(("name", "component"), [each for each in BUILT if each[0] != "None"])
def test_the_weight_of_every_quantized_layer_is_written_in_its_format(engines, name, component):
    built = engines[name]
    graph = onnx.load(built.bench.graphs(component) / f"{PIECES[component]}.onnx", load_external_data=False).graph
    types = [tensor.data_type for tensor in graph.initializer if tensor.name.endswith(".codes")]
    assert types == [CODES[name]] * built.quantize[component]["quantized"]


def test_the_random_checkpoint_has_no_equal_weights(checkpoint):
    """TensorRT keeps equal weights once, which would make every file too small."""
    with safe_open(checkpoint / "transformer/diffusion_pytorch_model.safetensors", framework="pt") as file:
        matrices = [file.get_tensor(name) for name in file.keys() if file.get_tensor(name).ndim == 2]  # noqa: SIM118 - no mapping
    assert all(not torch.equal(a, b) for i, a in enumerate(matrices) for b in matrices[:i] if a.shape == b.shape)


def test_a_complete_checkpoint_is_kept(checkpoint):
    before = (checkpoint / "model_index.json").stat().st_mtime_ns
    assert write_checkpoint(TINY, checkpoint.parent) == checkpoint
    assert (checkpoint / "model_index.json").stat().st_mtime_ns == before


def test_a_stage_is_measured_in_a_process_of_its_own(engines, tmp_path):
    bench = replace(engines["None"].bench, work=str(tmp_path))
    shutil.copytree(engines["None"].bench.graphs("vae"), bench.graphs("vae"))
    measured = run_measured("compile vae_decoder", "compile", [asdict(bench), "vae"])
    assert not measured.failure
    assert measured.facts["bytes"] == engines["None"].compile["vae"]["bytes"]
    assert measured.peak_bytes >= measured.peak_anonymous_bytes > 50 * 2**20
    assert measured.seconds > 0 < measured.cpu_seconds


def test_a_stage_that_dies_is_a_failure_and_not_an_exception(tmp_path, capfd):
    measured = run_measured("nothing", "frobnicate", [])
    assert measured.failure == "exit code 1"
    assert "no stage frobnicate" in capfd.readouterr().err
