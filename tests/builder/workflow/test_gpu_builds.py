"""Builds for a GPU that is not here: TensorRT-RTX compiles the very graphs that TensorRT takes, and the report says what was not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_api.build_report import BuildReport
from tests.support.builds import digits_job, run_here, write_job


@pytest.mark.parametrize("quantization", [{"format": "FP8"}, {"format": "NVFP4"}], ids=["FP8", "NVFP4"])
def test_a_package_with_plans_is_built_ahead_for_blackwell(quantization, shared_store, tmp_path):
    job = digits_job(quantization=quantization)
    job |= {"accelerator": {"product": "NVIDIA-GeForce-RTX-5090", "compiler": "TensorRTRTX"}, "verification": "Simulated"}
    finished = run_here(write_job(tmp_path, job), shared_store)
    assert finished.code == 0, finished.result
    folder = Path(finished.result["path"])
    report = BuildReport.model_validate_json((folder / "build.json").read_text())
    for piece in ("text_encoder", "transformer", "vae_decoder"):
        assert (folder / "model_repository" / piece / "1" / "model.plan").stat().st_size > 100_000
        # Triton's TensorRT back end links libnvinfer, which loads no plan of TensorRT-RTX.
        assert 'backend: "python"' in (folder / "model_repository" / piece / "config.pbtxt").read_text()
    assert not report.verified_on_engine
    assert report.comparison is None
    assert not report.simulated  # The GPU has the kernels; what was not run on it is said by verifiedOnEngine.
    errors = {piece.name: piece.relative_error for piece in report.pieces}
    assert all(error is not None and error < 1e-1 for error in errors.values()), errors
