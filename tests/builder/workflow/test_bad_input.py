"""What wrong jobs and checkpoints get: one sentence that says what to do, the right exit code, and nothing published."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from diffusion_api.parsing import parse_build_job
from engine_builder.__main__ import main, read_job
from engine_builder.build import build_engine
from engine_builder.errors import (
    InvalidJobError,
    InvalidModelError,
    QualityBudgetError,
    TransientError,
    UnsafeModelError,
    UnsupportedTargetError,
)
from engine_builder.store import Store
from tests.support.builds import copied_checkpoint, digits_job, write_job


def build(job, folder):
    return build_engine(parse_build_job(job), Store(folder / "store"))


def published(folder: Path) -> list[Path]:
    return list((folder / "store" / "artifacts").glob("engine-*"))


def test_an_unknown_field_is_named_with_its_path(tmp_path):
    job = digits_job()
    job["shapes"][0]["wdth"] = 64
    with pytest.raises(InvalidJobError, match=r"shapes\[0\]\.wdth"):
        read_job(write_job(tmp_path, job))


def test_a_wrong_job_exits_with_64_and_tells_in_the_termination_log(tmp_path):
    job = digits_job()
    job["shapes"] = [{"width": 1000, "height": 64}]
    log = tmp_path / "termination-log"
    log.touch()
    code = main(["build", str(write_job(tmp_path, job)), "--store", str(tmp_path / "store"), "--termination-log", str(log)])
    result = json.loads(log.read_text())
    assert code == 64
    assert "1000 is not a multiple of 16; use 992 or 1008" in result["message"]


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidModelError, match=r"model_index\.json"):
        build(digits_job(tmp_path / "empty"), tmp_path)


def test_a_missing_component_is_named(tmp_path):
    checkpoint = copied_checkpoint(tmp_path)
    shutil.rmtree(checkpoint / "vae")
    with pytest.raises(InvalidModelError, match="vae"):
        build(digits_job(checkpoint), tmp_path)


def test_an_unknown_architecture_lists_the_known_ones(tmp_path):
    checkpoint = copied_checkpoint(tmp_path)
    index = json.loads((checkpoint / "model_index.json").read_text())
    (checkpoint / "model_index.json").write_text(json.dumps({**index, "_class_name": "UnheardOfPipeline"}))
    with pytest.raises(InvalidModelError, match=r"UnheardOfPipeline.*flux2-klein"):
        build(digits_job(checkpoint), tmp_path)


def test_a_truncated_tensor_file_is_named(tmp_path):
    checkpoint = copied_checkpoint(tmp_path)
    file = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InvalidModelError, match="transformer/diffusion_pytorch_model"):
        build(digits_job(checkpoint), tmp_path)


def test_a_student_whose_keys_do_not_match_is_refused_by_name_and_number(tmp_path):
    student = tmp_path / "student.safetensors"
    tensors = load_file(copied_checkpoint(tmp_path) / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file({f"surprise.{name}": tensor for name, tensor in list(tensors.items())[:3]}, student)
    job = digits_job()
    job["model"]["student"] = {"uri": f"file://{student}", "format": "Diffusers"}
    with pytest.raises(InvalidModelError, match=r"3 keys.*surprise"):
        build(job, tmp_path)


def test_a_student_replaces_the_transformer(tmp_path):
    checkpoint = copied_checkpoint(tmp_path)
    student = tmp_path / "student.safetensors"
    tensors = load_file(checkpoint / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, student)
    job = digits_job(checkpoint)
    job["model"]["student"] = {"uri": f"file://{student}", "format": "Diffusers"}
    with pytest.raises(QualityBudgetError, match="draws nothing"):  # The checkpoint's own weights draw digits.
        build(job, tmp_path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "student.pth").write_bytes(pickle.dumps({"model": {"net": Bomb()}}, protocol=2))
    job = digits_job()
    job["model"]["student"] = {"uri": f"file://{tmp_path / 'student.pth'}", "format": "FastGen"}
    with pytest.raises(UnsafeModelError):
        build(job, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_is_found_before_and_the_build_goes_on_after(tmp_path, monkeypatch):
    job = digits_job(copied_checkpoint(tmp_path), quantization={"format": "NVFP4"}, qualityBudget={"minPSNR": 99})
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
        with pytest.raises(TransientError, match="more disk space is needed"):
            build(job, tmp_path)
    with pytest.raises(QualityBudgetError):  # It got as far as the gate.
        build(job, tmp_path)


def test_a_shape_that_the_architecture_cannot_take_is_refused(tmp_path):
    job = digits_job()
    job["shapes"] = [{"width": 64, "height": 64, "frames": 9}]
    with pytest.raises(InvalidJobError, match="frames"):
        build(job, tmp_path)


def test_a_format_without_kernels_on_the_gpu_is_refused_before_any_download(tmp_path):
    job = digits_job(quantization={"format": "NVFP4"})
    job["accelerator"] = {"product": "NVIDIA-L4", "compiler": "TensorRTRTX"}
    with pytest.raises(InvalidJobError, match=r"optimization\.quantization\.format: .*NVFP4.*INT8, FP8"):
        build(job, tmp_path)
    assert not list((tmp_path / "store").glob("artifacts/fetch-*"))


def test_a_gpu_that_is_not_here_is_refused_with_the_way_out(tmp_path):
    job = digits_job(quantization={"format": "FP8"})
    job["accelerator"] = {"product": "NVIDIA-L4", "compiler": "TensorRTRTX"}
    with pytest.raises(UnsupportedTargetError, match="simulate-verification"):
        build(job, tmp_path)


def test_a_budget_that_nothing_meets_prints_what_was_reached_and_publishes_nothing(tmp_path):
    with pytest.raises(QualityBudgetError, match=r"INT8.*\n?.*dB") as refused:
        build(digits_job(qualityBudget={"minPSNR": 99}), tmp_path)
    assert "≥ 99 dB" in str(refused.value)
    assert not published(tmp_path)


@pytest.mark.parametrize(("component", "value"), [("transformer", float("nan")), ("vae", 0.0)], ids=["NaN", "constant"])
def test_a_model_that_draws_nothing_never_passes(tmp_path, component, value):
    checkpoint = copied_checkpoint(tmp_path)
    file = checkpoint / component / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * 0 + value if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, file)
    with pytest.raises((QualityBudgetError, InvalidModelError)):
        build(digits_job(checkpoint, qualityBudget={"minPSNR": 0}), tmp_path)
    assert not published(tmp_path)
