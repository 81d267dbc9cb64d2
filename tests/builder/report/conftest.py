from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from diffusion_api.accelerator import Accelerator
from diffusion_api.build_job import BuildJob
from diffusion_api.build_report import (
    BuildReport,
    CacheCalibration,
    CandidateResult,
    Comparison,
    Latency,
    PieceReport,
    StageTiming,
)
from diffusion_api.deployment import MeasuredQuality
from diffusion_api.model_spec import ModelSource, Shape
from diffusion_api.optimization import Optimization, QualityBudget, QuantizationAlgorithm, QuantizationFormat, ScaleMode
from diffusion_api.recipe import ComponentRecipe, MonotoneTable, Recipe, TeaCacheStepCache
from engine_builder.report.pictures import ReportPictures

TABLE = MonotoneTable(x=(0.05, 0.1, 0.2, 0.4), y=(0.02, 0.08, 0.2, 0.22), r_squared=0.83, samples=648)
CACHE = TeaCacheStepCache(table=TABLE, threshold=0.2, skip_ratio=0.6)


def recipe(format: QuantizationFormat, mode: ScaleMode | None = None, algorithm: QuantizationAlgorithm | None = None, **kwargs) -> Recipe:
    return Recipe(components={"transformer": ComponentRecipe(format=format, mode=mode, algorithm=algorithm)}, **kwargs)


def candidate(recipe: Recipe, psnr: float | None, speed: float, **kwargs) -> CandidateResult:
    quality = None if psnr is None else MeasuredQuality(psnr=psnr, ssim=0.98)
    return CandidateResult(recipe=recipe, label=recipe.label, quality=quality, expected_speedup=speed, size_mib=3.2, **kwargs)


CANDIDATES = (
    candidate(recipe(QuantizationFormat.NVFP4, ScaleMode.DYNAMIC, QuantizationAlgorithm.MAX), 31.2, 1.9, simulated=True, note="31.2 dB"),
    candidate(recipe(QuantizationFormat.NVFP4, ScaleMode.DYNAMIC, QuantizationAlgorithm.SVD_QUANT), 36.9, 1.8, simulated=True),
    candidate(
        recipe(QuantizationFormat.MXFP8, ScaleMode.DYNAMIC, QuantizationAlgorithm.MAX), 40.7, 1.55, within_budget=True, simulated=True
    ),
    candidate(recipe(QuantizationFormat.FP8, ScaleMode.STATIC, QuantizationAlgorithm.MAX), 43.3, 1.6, within_budget=True),
    candidate(recipe(QuantizationFormat.FP8, ScaleMode.DYNAMIC, QuantizationAlgorithm.MAX), 43.1, 1.58, within_budget=True),
    candidate(recipe(QuantizationFormat.INT8, ScaleMode.STATIC, QuantizationAlgorithm.MAX), 45.2, 1.5, within_budget=True),
    candidate(
        recipe(QuantizationFormat.INT8, ScaleMode.STATIC, QuantizationAlgorithm.SMOOTH_QUANT, step_cache=CACHE),
        41.4,
        2.4,
        within_budget=True,
        chosen=True,
    ),
    candidate(recipe(QuantizationFormat.NONE), 100.0, 1.0, within_budget=True, note="slower"),
    candidate(recipe(QuantizationFormat.INT8, ScaleMode.STATIC, QuantizationAlgorithm.SMOOTH_QUANT), None, 1.49),
)


@pytest.fixture(scope="session")
def report() -> BuildReport:
    begin = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    pairs = np.random.default_rng(0).uniform(0.05, 0.4, (300, 2))
    pairs[:, 1] = pairs[:, 0] * 0.6 + pairs[:, 1] * 0.1
    stages = ("fetch", "reference", "search", "export", "compile", "verify", "package")
    pieces = ("text_encoder", "transformer_prelude", "transformer_body", "transformer_head", "vae_decoder")
    return BuildReport(
        engine_key="0f" * 32,
        job=BuildJob(
            model=ModelSource(uri="file:///models/digits-klein"),
            shapes=(Shape(width=64, height=64),),
            optimization=Optimization(quality_budget=QualityBudget(min_psnr=38, max_flip=0.08)),
            accelerator=Accelerator(product="CPU"),
        ),
        resolved_revision="3b" * 20,
        family="flux2-klein",
        recipe=CANDIDATES[6].recipe,
        simulated=False,
        verified_on_engine=True,
        quality=MeasuredQuality(psnr=41.23, ssim=0.987, flip=0.031),
        comparison=Comparison(
            unoptimized=Latency(median_ms=84.2, p95_ms=90.0, repeats=20), optimized=Latency(median_ms=31.4, p95_ms=33.7, repeats=20)
        ),
        unoptimized_mib=8.1,
        optimized_mib=2.3,
        candidates=CANDIDATES,
        step_cache=CacheCalibration(
            table=TABLE,
            pairs=tuple((float(x), float(y)) for x, y in pairs),
            sweep=((0.1, 0.38, 46.0), (0.15, 0.5, 43.5), (0.2, 0.6, 41.4), (0.4, 0.75, 32.0)),
            masks=(("1101001001001001", 0.56, 40.2), ("1000100010001000", 0.75, 29.1)),
            decision="TeaCache 0.2 (skips 60%): saves 54% of a generation's time at 41.4 dB (≥ 38 dB)",
        ),
        pieces=tuple(PieceReport(name=n, relative_error=2.1e-6, onnx_mib=1.2, compiled_mib=0.7, compile_seconds=1.5) for n in pieces),
        stages=tuple(StageTiming(name=n, seconds=0.4 * 2.1**i, peak_memory_mib=700 + 90 * i, reused=i < 2) for i, n in enumerate(stages)),
        versions={"torch": "2.15.0", "openvino": "2026.4.1"},
        warnings=(),
        started_at=begin,
        finished_at=begin + timedelta(seconds=97),
        checksums={"models/pipeline/1/model.py": "ab" * 32},
    )


@pytest.fixture(scope="session")
def pictures() -> ReportPictures:
    random = np.random.default_rng(0)
    reference = random.integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    optimized = np.where(reference > 127, reference - 2, reference + 2).astype(np.uint8)
    optimized[6] = np.where(reference[6] > 127, reference[6] - 20, reference[6] + 20)
    return ReportPictures(tuple(f"a red digit {i}" for i in range(10)), tuple(range(10)), reference, optimized)
