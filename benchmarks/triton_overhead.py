"""What Triton costs and gains, and what a batch neighbour changes in a picture: on the digits and on a FLUX.2 of 46 M parameters.

    python -m benchmarks.triton_overhead [--threads N] [MODEL_REPOSITORY ...]

Without an argument it builds both in a temporary folder. The bare loop runs the same pieces in this process, so the difference is Triton's:
gRPC, BLS calls, shared memory, and the delay for which a step waits for company. Pictures are raw, and prompts are cached, in both.
Connections stay open from request to request. The two take turns by eight pictures, of which the first is not counted: it finds the
processor's caches full of the other's weights, which no server's second request does.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from diffusion_api.serving import Serving
from engine_runtime.client import PipelineClient
from engine_runtime.denoiser import BODY, HEAD, PRELUDE, TRANSFORMER
from engine_runtime.executors import load_runner
from engine_runtime.executors.threads import VARIABLE, cpu_threads
from engine_runtime.generation import Engine
from engine_runtime.pieces import PieceRunner
from engine_runtime.repository import EngineFiles, load_engine_files
from engine_runtime.requests import GenerationRequest
from engine_runtime.triton.config import PIPELINE
from engine_runtime.triton.installation import find_triton
from engine_runtime.triton.repository import VERSION, link_model_repository
from engine_runtime.triton.server import LocalTriton

Draw = Callable[[int], float]
"""Draws the picture of a seed; returns milliseconds."""
PROMPT = "a red digit seven"
COLOURS, DIGITS = ("red", "green", "blue", "yellow"), ("one", "two", "three", "four", "five", "six", "seven", "eight")
PROMPTS = [f"a {COLOURS[row % len(COLOURS)]} digit {digit}" for row, digit in enumerate(DIGITS)]
CONCURRENT = 8
DELAYS_US = (0, 1000)
BATCHES, SLOW_BATCHES = (1, 2, 3, 4, 8), (2, 8)
TURN = 8
"""Pictures of a turn; the first is not counted."""
SLOW_MS = 200
"""From here on a picture is slow, and fewer are drawn."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Turns:
    """Milliseconds of the same pictures, bare and behind Triton by turns, so that both met the same load of the machine."""

    bare: Sequence[float]
    served: Sequence[float]

    @property
    def added(self) -> float:
        """Median of what Triton added to a picture."""
        return statistics.median(served - bare for bare, served in zip(self.bare, self.served, strict=True))

    @property
    def added_at_best(self) -> float:
        """The fastest behind Triton less the fastest bare: where the machine is busy, nearer to what Triton itself costs."""
        return min(self.served) - min(self.bare)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="*", type=Path, metavar="MODEL_REPOSITORY", help="of engines for the CPU")
    parser.add_argument("--threads", type=int, default=cpu_threads(), help="of each piece; else as many as there are CPUs")
    options = parser.parse_args()
    os.environ[VARIABLE] = str(options.threads)  # For this process and for Triton's.
    with tempfile.TemporaryDirectory() as folder:
        for repository in options.repositories or [digits_repository(Path(folder)), random_repository(Path(folder))]:
            measure(repository)


def digits_repository(folder: Path) -> Path:
    """Build the example."""
    _python("diffusionctl", "build", "examples/digits.yaml", "--store", str(folder / "store"))
    return next((folder / "store" / "artifacts").glob("engine-*")) / "model_repository"


def random_repository(folder: Path) -> Path:
    """Build the random FLUX.2; in a process of its own, for this one measures and needs no torch."""
    _python("benchmarks.random_engine", str(folder / "random"))
    return folder / "random" / "model_repository"


def _python(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{module} failed:\n{done.stderr[-2000:]}")


def measure(repository: Path) -> None:
    """Print both tables of an engine."""
    files = load_engine_files(repository / PIPELINE / VERSION)
    runners = {name: load_runner(repository / name / VERSION, piece) for name, piece in files.manifest.pieces.items()}
    engine = bare_engine(files, runners, prompt_cache_size=4)
    plan = files.manifest.shapes[0]
    name = f"{files.manifest.recipe.label}, {plan.shape.name}, {len(plan.sigmas) - 1} steps, {_calls(engine)} piece calls a picture"
    print(f"\n{name}, {os.environ[VARIABLE]} thread(s) a piece\n")
    print(f"{'':38}{'best ms':>9}{'p50 ms':>9}{'pictures/s':>12}{'added ms':>10}{'added':>9}{'at best ms':>12}")
    draw = partial(engine.generate, [GenerationRequest(PROMPT, seed=0)])
    _milliseconds(draw)
    slow = _milliseconds(draw) > SLOW_MS
    for delay in DELAYS_US:
        print_served(repository, engine, delay, pictures=7 if slow else 42)
    print_neighbours(bare_engine(files, runners, prompt_cache_size=0), SLOW_BATCHES if slow else BATCHES)


def bare_engine(files: EngineFiles, runners: Mapping[str, PieceRunner], prompt_cache_size: int) -> Engine:
    """Return the engine with its pieces in this process."""
    return Engine(files.manifest, runners, files.constants, files.tokenizer, prompt_cache_size=prompt_cache_size)


def print_served(repository: Path, engine: Engine, delay_us: int, pictures: int) -> None:
    """Measure one delay: pictures one at a time, then from eight clients at once, rounded up to whole batches."""

    def bare(seed: int) -> float:
        return _milliseconds(lambda: engine.generate([GenerationRequest(PROMPT, seed=seed)]))

    def served(seed: int) -> float:
        client = clients.get()
        try:
            return _milliseconds(lambda: list(client.generate(PROMPT, seed=seed, output_format="raw")))
        finally:
            clients.put(client)

    with tempfile.TemporaryDirectory() as folder:
        link_model_repository(repository, Path(folder), Serving(max_batch_size=CONCURRENT, max_queue_delay_microseconds=delay_us))
        with LocalTriton(Path(folder), installation=find_triton(ROOT)) as triton, ExitStack() as stack:
            # As a gateway would: connections stay open.
            clients: queue.LifoQueue[PipelineClient] = queue.LifoQueue()
            for _ in range(CONCURRENT):
                clients.put(stack.enter_context(PipelineClient(triton.grpc_url)))
            pairs = [
                pair for turn in range(-(-pictures // (TURN - 1))) for pair in _turn(bare, served, range(TURN * turn, TURN * (turn + 1)))
            ]
            started = time.perf_counter()
            with ThreadPoolExecutor(CONCURRENT) as pool:
                together = list(pool.map(served, range(-(-pictures // CONCURRENT) * CONCURRENT)))
            rate = len(together) / (time.perf_counter() - started)
    turns = Turns([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    typical = statistics.median(turns.bare)
    _print_row("bare loop, one at a time", turns.bare, 1000 / typical)
    added = f"{turns.added:>10.2f}{turns.added / typical:>9.1%}{turns.added_at_best:>12.2f}"
    _print_row(f"Triton, delay {delay_us} µs, one at a time", turns.served, 1000 / statistics.median(turns.served), added)
    _print_row(f"Triton, delay {delay_us} µs, {CONCURRENT} at once", together, rate)


def _turn(bare: Draw, served: Draw, seeds: Sequence[int]) -> list[tuple[float, float]]:
    ours, tritons = [bare(seed) for seed in seeds], [served(seed) for seed in seeds]
    return list(zip(ours[1:], tritons[1:], strict=True))


def print_neighbours(engine: Engine, batches: Sequence[int]) -> None:
    """Print how far pictures move when others are drawn in the same batch: kernels may round otherwise at another batch size."""
    requests = [GenerationRequest(prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    alone = np.stack([engine.generate([request])[0].output for request in requests]).astype(np.int64)
    print(f"\n{'drawn in a batch of':22}{'pictures that differ':>22}{'values that differ':>20}{'largest':>9}{'worst PSNR dB':>15}")
    for batch in batches:
        starts = range(0, len(requests), batch)
        together = [result.output for start in starts for result in engine.generate(requests[start : start + batch])]
        difference = np.stack(together).astype(np.int64) - alone
        errors = np.mean(difference**2, axis=(1, 2, 3))
        psnr = f"{10 * np.log10(255**2 / errors.max()):.1f}" if errors.any() else "equal"
        differ = f"{np.count_nonzero(errors)} of {len(errors)}"
        print(f"{batch:<22}{differ:>22}{np.mean(difference != 0):>20.2%}{np.abs(difference).max():>9}{psnr:>15}")


def _milliseconds(draw: Callable[[], object]) -> float:
    started = time.perf_counter()
    draw()
    return 1000 * (time.perf_counter() - started)


def _print_row(name: str, durations: Sequence[float], rate: float, added: str = "") -> None:
    print(f"{name:38}{min(durations):>9.2f}{statistics.median(durations):>9.2f}{rate:>12.2f}{added}", flush=True)


def _calls(engine: Engine) -> int:
    """Piece calls of a picture whose prompt is cached, with every step computed."""
    manifest = engine.manifest
    a_step = [name for name in (TRANSFORMER, PRELUDE, BODY, HEAD) if name in manifest.pieces]
    return (len(manifest.shapes[0].sigmas) - 1) * len(a_step) + len(manifest.decoders)


if __name__ == "__main__":
    main()
