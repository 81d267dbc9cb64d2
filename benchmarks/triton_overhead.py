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
from collections.abc import Callable
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
    bare = median_ms(lambda seed: engine.generate([GenerationRequest(PROMPT, seed=seed)]), options.pictures)
    rows = [("bare loop, one at a time", bare, 1000 / bare, "")]
    for delay in DELAYS_US:
        rows += served_rows(options.repository, files, delay, options.pictures, bare)
    print(f"{'':42}{'p50 ms':>10}{'pictures/s':>12}  ")
    for name, milliseconds, rate, note in rows:
        print(f"{name:42}{milliseconds:>10.2f}{rate:>12.1f}  {note}")
    print_neighbours(engine)


def bare_engine(repository: Path, files: EngineFiles) -> Engine:
    """Return the engine with its pieces in this process."""
    runners = {name: load_runner(repository / name / VERSION, piece) for name, piece in files.manifest.pieces.items()}
    return Engine(files.manifest, runners, files.constants, files.tokenizer, prompt_cache_size=4)


def median_ms(draw: Callable[[int], object], pictures: int) -> float:
    """Return the median duration of a picture in milliseconds, after two that warm up."""
    durations = []
    for seed in range(pictures + 2):
        started = time.perf_counter()
        draw(seed)
        durations.append(1000 * (time.perf_counter() - started))
    return statistics.median(durations[2:])


def served_rows(repository: Path, files: EngineFiles, delay_us: int, pictures: int, bare_ms: float) -> list[tuple[str, float, float, str]]:
    """Measure the engine behind Triton with a batching delay."""
    with tempfile.TemporaryDirectory() as folder:
        link_model_repository(repository, Path(folder), Serving(max_batch_size=CONCURRENT, max_queue_delay_microseconds=delay_us))
        with LocalTriton(Path(folder), installation=find_triton(ROOT)) as triton:
            alone = median_ms(lambda seed: list(generate(triton.grpc_url, PROMPT, seed=seed, output_format="raw")), pictures)
            started = time.perf_counter()
            with ThreadPoolExecutor(CONCURRENT) as pool:
                latencies = list(pool.map(lambda seed: _one_ms(triton.grpc_url, seed), range(pictures * 2)))
            rate = len(latencies) / (time.perf_counter() - started)
    calls = _calls(files)
    note = f"{(alone - bare_ms) / calls:.2f} ms more a piece's call ({calls} calls)"
    return [
        (f"Triton, delay {delay_us} µs, one at a time", alone, 1000 / alone, note),
        (f"Triton, delay {delay_us} µs, {CONCURRENT} at once", statistics.median(latencies), rate, ""),
    ]


def print_neighbours(engine: Engine) -> None:
    """Print how far a picture moves when others are drawn in the same batch: kernels may round otherwise at another batch size."""
    alone = engine.generate([GenerationRequest(PROMPT, seed=0)])[0].output.astype(np.int64)
    print(f"\n{'same request in a batch of':28}{'pixels that differ':>20}{'largest':>10}{'PSNR dB':>10}")
    for batch in (1, 2, 3, 4, 8):
        requests = [GenerationRequest(PROMPT, seed=seed) for seed in range(batch)]
        difference = engine.generate(requests)[0].output.astype(np.int64) - alone
        error = float(np.mean(difference**2))
        psnr = f"{10 * np.log10(255**2 / error):.1f}" if error else "equal"
        print(f"{batch:<28}{np.mean(difference != 0):>20.2%}{np.abs(difference).max():>10}{psnr:>10}")


def _one_ms(url: str, seed: int) -> float:
    started = time.perf_counter()
    list(generate(url, PROMPT, seed=seed, output_format="raw"))
    return 1000 * (time.perf_counter() - started)


def _calls(files: EngineFiles) -> int:
    """Piece calls of a picture whose prompt is cached, with every step computed."""
    a_step = [name for name in (TRANSFORMER, PRELUDE, BODY, HEAD) if name in files.manifest.pieces]
    return (len(files.manifest.shapes[0].sigmas) - 1) * len(a_step) + len(files.manifest.decoders)


if __name__ == "__main__":
    main()
