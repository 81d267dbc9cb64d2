"""What Triton costs and gains on one engine, and what a batch neighbour changes in a picture; prints two tables.

Usage: python benchmarks/triton_overhead.py MODEL_REPOSITORY [--pictures 16]. MODEL_REPOSITORY is `model_repository` of a built engine
for the CPU. The bare loop runs the same pieces in this process, so the difference is Triton's: gRPC, BLS calls, shared memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from diffusion_api.serving import Serving
from engine_runtime.client import generate
from engine_runtime.denoiser import BODY, HEAD, PRELUDE, TRANSFORMER
from engine_runtime.executors import load_runner
from engine_runtime.executors.threads import VARIABLE
from engine_runtime.generation import Engine
from engine_runtime.repository import EngineFiles, load_engine_files
from engine_runtime.requests import GenerationRequest
from engine_runtime.triton.config import PIPELINE
from engine_runtime.triton.installation import find_triton
from engine_runtime.triton.repository import VERSION, link_model_repository
from engine_runtime.triton.server import LocalTriton

PROMPT = "a red digit seven"
CONCURRENT = 8
WARM_UP = 3
DELAYS_US = (0, 1000)
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("repository", type=Path)
    arguments.add_argument("--pictures", type=int, default=16)
    options = arguments.parse_args()
    os.environ.setdefault(VARIABLE, "1")  # The same number of threads in this process and in Triton's.
    files = load_engine_files(options.repository / PIPELINE / VERSION)
    engine = bare_engine(options.repository, files)
    print(f"{files.manifest.recipe.label}, {files.manifest.shapes[0].shape.name}, {os.environ[VARIABLE]} thread(s) a piece\n")
    print(f"{'':42}{'best ms':>10}{'p50 ms':>10}{'pictures/s':>12}")
    for delay in DELAYS_US:
        print_served(options.repository, engine, delay, options.pictures)
    print_neighbours(engine)


def bare_engine(repository: Path, files: EngineFiles) -> Engine:
    """Return the engine with its pieces in this process."""
    runners = {name: load_runner(repository / name / VERSION, piece) for name, piece in files.manifest.pieces.items()}
    return Engine(files.manifest, runners, files.constants, files.tokenizer, prompt_cache_size=4)


def print_served(repository: Path, engine: Engine, delay_us: int, pictures: int) -> None:
    """Measure the engine bare and behind Triton in turns, so that both meet the same load of the machine."""

    def bare(seed: int) -> float:
        return _milliseconds(lambda: engine.generate([GenerationRequest(PROMPT, seed=seed)]))

    def served(seed: int) -> float:
        return _milliseconds(lambda: list(generate(triton.grpc_url, PROMPT, seed=seed, output_format="raw")))

    with tempfile.TemporaryDirectory() as folder:
        link_model_repository(repository, Path(folder), Serving(max_batch_size=CONCURRENT, max_queue_delay_microseconds=delay_us))
        with LocalTriton(Path(folder), installation=find_triton(ROOT)) as triton:
            turns = [(bare(seed), served(seed)) for seed in range(pictures + WARM_UP)][WARM_UP:]
            started = time.perf_counter()
            with ThreadPoolExecutor(CONCURRENT) as pool:
                together = list(pool.map(served, range(pictures * 2)))
            rate = len(together) / (time.perf_counter() - started)
    alone, behind = [turn[0] for turn in turns], [turn[1] for turn in turns]
    _print_row("bare loop, one at a time", alone, 1000 / statistics.median(alone))
    _print_row(f"Triton, delay {delay_us} µs, one at a time", behind, 1000 / statistics.median(behind))
    _print_row(f"Triton, delay {delay_us} µs, {CONCURRENT} at once", together, rate)
    added = min(behind) - min(alone)
    print(f"  Triton adds {added:.2f} ms a picture, by the best of each: one connection and {_calls(engine)} calls of pieces\n")


def print_neighbours(engine: Engine) -> None:
    """Print how far a picture moves when others are drawn in the same batch: kernels may round otherwise at another batch size."""
    alone = engine.generate([GenerationRequest(PROMPT, seed=0)])[0].output.astype(np.int64)
    print(f"{'same request in a batch of':28}{'pixels that differ':>20}{'largest':>10}{'PSNR dB':>10}")
    for batch in (1, 2, 3, 4, 8):
        requests = [GenerationRequest(PROMPT, seed=seed) for seed in range(batch)]
        difference = engine.generate(requests)[0].output.astype(np.int64) - alone
        error = float(np.mean(difference**2))
        psnr = f"{10 * np.log10(255**2 / error):.1f}" if error else "equal"
        print(f"{batch:<28}{np.mean(difference != 0):>20.2%}{np.abs(difference).max():>10}{psnr:>10}")


def _milliseconds(draw: Callable[[], object]) -> float:
    started = time.perf_counter()
    draw()
    return 1000 * (time.perf_counter() - started)


def _print_row(name: str, durations: Sequence[float], rate: float) -> None:
    print(f"{name:42}{min(durations):>10.2f}{statistics.median(durations):>10.2f}{rate:>12.1f}")


def _calls(engine: Engine) -> int:
    """Piece calls of a picture whose prompt is cached, with every step computed."""
    manifest = engine.manifest
    a_step = [name for name in (TRANSFORMER, PRELUDE, BODY, HEAD) if name in manifest.pieces]
    return (len(manifest.shapes[0].sigmas) - 1) * len(a_step) + len(manifest.decoders)


if __name__ == "__main__":
    main()
