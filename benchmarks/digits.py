"""One picture of the digits model end to end, prompt to pixels: our engine against diffusers, in turns; prints a table.

    python -m benchmarks.digits [--repeats 30]

Peers: `Flux2KleinPipeline` in FP32 and BF16, and in BF16 with its transformer and VAE decoder compiled by `torch.compile`. Quality is
PSNR against the FP32 pipeline for the same noise; ours comes from the build's own report, measured on other samples.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import Flux2KleinPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from diffusion_api.build_report import BuildReport
from engine_builder.evaluation.budget import text_table
from engine_builder.evaluation.metrics import psnr
from engine_runtime.executors import load_runner
from engine_runtime.generation import Engine
from engine_runtime.repository import load_engine_files
from engine_runtime.requests import GenerationRequest

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "examples" / "digits" / "digits-klein"
PROMPT = "a red digit seven"
QUALITY_SEEDS = 8

Draw = Callable[[int], np.ndarray]
"""Draws the prompt from a seed: UINT8 [H, W, 3]."""


def main() -> None:
    """Measure every variant in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    for logging in (diffusers_logging, transformers_logging):  # The table is all that this prints.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        ours, report = our_engine(Path(folder))
        variants: dict[str, Draw] = {
            "diffusers, eager FP32": diffusers_pipeline(torch.float32),
            "diffusers, eager BF16": diffusers_pipeline(torch.bfloat16),
            "diffusers, torch.compile BF16": diffusers_pipeline(torch.bfloat16, compiled=True),
            f"this project: {report.recipe.label}": ours,
        }
        medians = in_turns(variants, repeats)
    quality = {name: quality_against(variants["diffusers, eager FP32"], draw) for name, draw in list(variants.items())[:3]}
    best_peer = min(list(medians.values())[:3])
    rows = [[name, f"{ms:.1f} ms", f"{best_peer / ms:.2f}×", _db(quality.get(name, report.quality.psnr))] for name, ms in medians.items()]
    print(text_table(["one picture, 64×64, 4 steps", "median", "of the best peer", "PSNR"], rows))


def our_engine(folder: Path) -> tuple[Draw, BuildReport]:
    """Build the example and load its engine into this process."""
    command = [sys.executable, "-W", "ignore", "-m", "diffusionctl", "build", "examples/digits.yaml", "--store", str(folder), "--json"]
    built = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    repository = Path(built["path"]) / "model_repository"
    files = load_engine_files(repository / "pipeline" / "1")
    runners = {name: load_runner(repository / name / "1", piece) for name, piece in files.manifest.pieces.items()}
    engine = Engine(files.manifest, runners, files.constants, files.tokenizer)
    return lambda seed: engine.generate([GenerationRequest(PROMPT, seed)])[0].output, BuildReport.model_validate(built["report"])


def diffusers_pipeline(dtype: torch.dtype, *, compiled: bool = False) -> Draw:
    """Load the pipeline as its users do."""
    pipeline = Flux2KleinPipeline.from_pretrained(CHECKPOINT, torch_dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        pipeline.transformer.compile()
        pipeline.vae.decoder.compile()

    def draw(seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        sizes = {"height": 64, "width": 64, "max_sequence_length": 16, "num_inference_steps": 4, "guidance_scale": 1.0}
        picture = pipeline(prompt=PROMPT, generator=generator, output_type="np", **sizes).images[0]
        return np.asarray((picture * 255).round(), dtype=np.uint8)

    return draw


def in_turns(variants: dict[str, Draw], repeats: int) -> dict[str, float]:
    """Return each variant's median in milliseconds, after three unmeasured turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(3 + repeats):
        for name, draw in variants.items():
            begin = time.perf_counter()
            draw(turn)
            if turn >= 3:
                seconds[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def quality_against(reference: Draw, candidate: Draw) -> float:
    """Return the mean PSNR in dB over a few seeds."""
    pairs = [(reference(seed), candidate(seed)) for seed in range(QUALITY_SEEDS)]
    return float(psnr(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])).mean())


def _db(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} dB"


if __name__ == "__main__":
    main()
