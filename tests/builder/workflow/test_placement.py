"""Where a model is simulated and in which type, and what a machine without the memory for it says before it loads anything."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from diffusion_api.accelerator import Accelerator
from diffusion_api.parsing import parse_build_job
from engine_builder.build import build_engine
from engine_builder.errors import UnsupportedTargetError
from engine_builder.evaluation.reference import draw
from engine_builder.evaluation.samples import Sample
from engine_builder.families.registry import family_for
from engine_builder.fetch.tensor_files import TensorInfo
from engine_builder.store import Store
from engine_builder.workflow import placement, simulation
from engine_builder.workflow.context import BuildContext
from engine_builder.workflow.placement import GIB, ModelSize, Placement, placement_for, size_of_tensors
from tests.support.builds import DIGITS, digits_job

CPU = Accelerator.model_validate({"product": "CPU"})
GPU = Accelerator.model_validate({"product": "NVIDIA-B200"})
KLEIN_4B = ModelSize({"transformer": 4 * 10**9, "text_encoder": 4 * 10**9, "vae": 10**8}, is_half=True)
SMALL = ModelSize({"transformer": 1000}, is_half=False)


def memory(monkeypatch: pytest.MonkeyPatch, *, gib: float, gpu_gib: float | None = None) -> None:
    monkeypatch.setattr(placement, "memory_bytes", lambda: int(gib * GIB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_gib is not None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=int((gpu_gib or 0) * GIB)))


@pytest.mark.parametrize(
    ("accelerator", "gpu_gib", "device", "dtype"),
    [(GPU, 180, "cuda", torch.bfloat16), (GPU, None, "cpu", torch.float32), (CPU, 180, "cpu", torch.float32)],
)
def test_a_gpu_engine_is_simulated_on_the_gpu_that_is_here_in_its_own_type(monkeypatch, accelerator, gpu_gib, device, dtype):
    memory(monkeypatch, gib=16, gpu_gib=gpu_gib)
    found = placement_for(accelerator, SMALL)
    assert (found.device.type, found.dtype, found.reason) == (device, dtype, "")


def test_a_model_too_large_in_fp32_is_drawn_in_its_own_type_and_says_so(monkeypatch):
    memory(monkeypatch, gib=24)
    found = placement_for(GPU, KLEIN_4B)
    assert (found.device.type, found.dtype) == ("cpu", torch.bfloat16)
    assert "30.2 GiB in FP32, and this machine has 24.0 GiB" in found.reason


@pytest.mark.parametrize(
    ("accelerator", "size", "gib", "needed"),
    [
        (CPU, KLEIN_4B, 24, "29 GiB"),  # One component at a time is widened to FP32 for the export.
        (GPU, KLEIN_4B, 16, "19 GiB"),
        (GPU, ModelSize({"transformer": 10**10}, is_half=False), 24, "47 GiB"),
    ],
)
def test_a_machine_without_the_memory_says_how_much_is_needed(monkeypatch, accelerator, size, gib, needed):
    memory(monkeypatch, gib=gib)
    with pytest.raises(UnsupportedTargetError, match=f"at least {needed}"):
        placement_for(accelerator, size)


def test_a_gpu_without_the_memory_is_refused(monkeypatch):
    memory(monkeypatch, gib=999, gpu_gib=16)
    with pytest.raises(UnsupportedTargetError, match=r"the GPU has 16\.0 GiB"):
        placement_for(GPU, KLEIN_4B)


@pytest.mark.parametrize(("engines_gib", "together"), [(1, True), (100, True), (130, False)])
def test_a_gpu_holds_engine_and_unoptimized_model_together_where_both_fit(monkeypatch, engines_gib, together):
    memory(monkeypatch, gib=1, gpu_gib=180)
    where = placement_for(GPU, KLEIN_4B)  # 15 GiB in BF16; a fifth of the memory stays for everything else.
    assert placement.fits_beside(where, KLEIN_4B, engines_gib * GIB) is together


def test_a_released_gpu_is_free_for_the_compiler(monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("cache"))
    models = {"unoptimized": object()}
    for device in ("cpu", "cuda"):
        BuildContext.release(SimpleNamespace(scratch=models, placement=Placement(torch.device(device), torch.bfloat16)))
    assert freed == ["cache"]
    assert models == {}


def test_a_build_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(placement, "memory_bytes", lambda: 2**20)
    monkeypatch.setattr(simulation, "load_simulation", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(UnsupportedTargetError, match="of memory"):
        build_engine(parse_build_job(digits_job()), Store(tmp_path / "store"))
    assert not list((tmp_path / "store" / "artifacts").glob("reference-*"))


def test_the_size_is_read_from_headers():
    files = {
        "transformer/1.safetensors": {"a": TensorInfo("BF16", (2, 3)), "b": TensorInfo("I64", ())},
        "vae/a.safetensors": {"c": TensorInfo("F16", (5,))},
    }
    assert size_of_tensors(files) == ModelSize({"transformer": 7, "vae": 5}, is_half=True)
    assert not size_of_tensors({"vae/a.safetensors": {"c": TensorInfo("F32", (5,))}}).is_half


def test_a_model_draws_in_bf16_on_a_cpu():
    job = parse_build_job(digits_job())
    family = family_for(DIGITS)
    manifest = family.manifest(DIGITS, job.model.sampling, job.shapes, 1)
    where = Placement(torch.device("cpu"), torch.bfloat16)
    model = simulation.load_simulation(family, DIGITS, manifest, None, where)
    assert draw(model.engine(), [Sample("a red digit five", 1)]).pictures.std() > 10
