"""The main job on one machine: a DiffusionDeployment goes in; a quantized, compiled, measured and served model comes out.

    python examples/demo.py --store .cache/store

Builds `digits.yaml` (or finds it built), serves it with Triton, draws ten digits, and prints where the pictures and the report are.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from diffusionctl.build import build_file
from diffusionctl.files import read_deployment
from engine_builder.build import BuiltEngine
from engine_builder.report import words
from engine_runtime.client import generate
from engine_runtime.triton.server import served_engine
from examples.digits.vocabulary import prompt_for, ten_digits

DEPLOYMENT = Path(__file__).parent / "digits.yaml"


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path(".cache/store"), help="engine store")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the pictures")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    engine = build_file(DEPLOYMENT, options.store, simulate=False, as_json=False)
    explain_choice(engine, console)
    seconds = serve_and_draw(engine.path, options.out)
    console.print(f"ten digits drawn by Triton in {seconds:.2f} s: {options.out.resolve() / 'digits.png'}")
    console.print(f"next: `.venv/bin/diffusionctl run examples/digits.yaml --store {options.store}` keeps the server up")


def explain_choice(engine: BuiltEngine, console: Console) -> None:
    """Print every recipe that was scored, and why the chosen one was."""
    title = "Recipes that were tried in torch; the speed expected is relative to the engine that is not quantized"
    table = Table("recipe", "PSNR", "expected speed", "", title=title, title_justify="left", box=None, pad_edge=False)
    for candidate in engine.report.candidates:
        figure = words.psnr(candidate.quality)
        table.add_row(candidate.label, figure, f"{candidate.expected_speedup:.2f}×", "chosen" if candidate.chosen else candidate.note)
    console.print(table)
    if engine.report.step_cache.decision:
        console.print(f"step cache: {engine.report.step_cache.decision}")


def serve_and_draw(engine: Path, folder: Path) -> float:
    """Serve an engine while the ten digits are drawn into `folder`; return the seconds that the drawing took."""
    folder.mkdir(parents=True, exist_ok=True)
    with served_engine(engine, read_deployment(DEPLOYMENT).spec.serving) as server:
        return draw_digits(server.grpc_url, folder)


def draw_digits(url: str, folder: Path) -> float:
    """Draw the digits 0 to 9, each in the next colour, into `folder`, and a sheet of all; return the seconds it took."""
    begin = time.perf_counter()
    files = []
    for wanted in ten_digits():
        *_, answer = generate(url, prompt_for(wanted), seed=wanted.digit)
        files.append(folder / f"{wanted.digit}-{wanted.color}.png")
        files[-1].write_bytes(answer.data)
    seconds = time.perf_counter() - begin
    pictures = [Image.open(file) for file in files]
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index * pictures[0].width, 0))
    sheet.save(folder / "digits.png")
    return seconds


if __name__ == "__main__":
    main()
