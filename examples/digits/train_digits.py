"""Train the digits model on one CPU core, offline: about 15 minutes, or seconds with `--quick`, which draws nothing readable.

    python examples/digits/train_digits.py --out build/digits

writes `digits-teacher/` (16 to 32 steps, guidance 2), `digits-klein/` (4 steps, no guidance) and a sheet of pictures of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from examples.digits.drawing import contact_sheet, draw, load_pipeline
from examples.digits.training.pictures import load_strokes
from examples.digits.training.pipeline import new_pipeline, save
from examples.digits.training.student import STUDENT_STEPS, TEACHER_STEPS, distil
from examples.digits.training.teacher import train_teacher
from examples.digits.training.vae import train_vae
from examples.digits.vocabulary import prompt_for, ten_digits


@dataclass(frozen=True)
class Schedule:
    """How long each stage trains; the defaults are those of the committed weights."""

    vae_steps: int = 1400
    teacher_steps: int = 1700
    student_steps: int = 900
    trajectories: int = 2400
    pictures: int | None = None
    """None: all."""
    sheet_rows: int = 3


QUICK = Schedule(vae_steps=2, teacher_steps=2, student_steps=2, trajectories=12, pictures=24, sheet_rows=1)


def train(out: Path, schedule: Schedule, *, guidance: float = 2.0, seed: int = 0, threads: int = 1) -> None:
    """Train teacher and student and write both below `out`; the same seed, torch and processor give the same weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    strokes, pipeline = load_strokes(schedule.pictures), new_pipeline()
    train_vae(pipeline, strokes.pixels, schedule.vae_steps)
    train_teacher(pipeline, strokes, schedule.teacher_steps)
    save(pipeline, out / "digits-teacher", distilled=False)
    pipeline.transformer = distil(pipeline, schedule.student_steps, trajectories=schedule.trajectories, guidance=guidance)
    save(pipeline, out / "digits-klein", distilled=True)
    _write_sheet(out / "digits-teacher", steps=TEACHER_STEPS, guidance=guidance, rows=schedule.sheet_rows)
    _write_sheet(out / "digits-klein", steps=STUDENT_STEPS, guidance=1.0, rows=schedule.sheet_rows)


def _write_sheet(folder: Path, *, steps: int, guidance: float, rows: int) -> None:
    prompts = [prompt_for(digit) for row in range(rows) for digit in ten_digits(first_color=row)]
    pictures = draw(load_pipeline(folder), prompts, steps=steps, guidance=guidance)
    Image.fromarray(contact_sheet(pictures)).save(folder.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="two steps a stage: checks that everything runs")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance of the teacher that the student learns from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    start = time.perf_counter()
    train(chosen.out, QUICK if chosen.quick else Schedule(), guidance=chosen.guidance, seed=chosen.seed, threads=chosen.threads)
    print(f"{chosen.out} {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
