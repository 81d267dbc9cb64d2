"""Judge a digits pipeline in diffusers: is the right digit drawn in the right colour, and how far is the student from its teacher?

python examples/digits/evaluate_digits.py --student examples/digits/digits-klein --teacher tests/models/digits-teacher
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from examples.digits.drawing import draw, load_pipeline
from examples.digits.judge import judge
from examples.digits.vocabulary import TEMPLATES, Digit, all_digits, prompt_for

TEACHER_STEPS, TEACHER_GUIDANCE, STUDENT_STEPS = 16, 2.0, 4
SEED = 11


def shares_right(wanted: Sequence[Digit], pictures: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the shares of pictures [N, 64, 64, 3] whose digit and whose colour are right."""
    pairs = list(zip(wanted, judge(pictures), strict=True))
    digits = sum(asked.digit == shown.digit for asked, shown in pairs)
    colors = sum(asked.color == shown.color for asked, shown in pairs)
    return digits / len(pairs), colors / len(pairs)


def psnr(pictures: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio over all pictures, in dB."""
    error = np.mean((pictures.astype(np.float64) - reference) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def evaluate(student: Path, teacher: Path, count: int) -> None:
    """Print a line for each way of drawing `count` pictures."""
    known = all_digits()
    wanted = [known[index % len(known)] for index in range(count)]
    prompts = [prompt_for(digit) for digit in wanted]
    slow, fast = load_pipeline(teacher), load_pipeline(student)
    reference = draw(slow, prompts, steps=TEACHER_STEPS, guidance=TEACHER_GUIDANCE, seed=SEED)
    _print_line("teacher, 16 steps", wanted, reference, None)
    _print_line("teacher, 4 steps", wanted, draw(slow, prompts, steps=STUDENT_STEPS, guidance=TEACHER_GUIDANCE, seed=SEED), reference)
    drawn = draw(fast, prompts, steps=STUDENT_STEPS, seed=SEED)
    _print_line("student, 4 steps", wanted, drawn, reference)
    for template in TEMPLATES[3:]:
        other = draw(fast, [prompt_for(digit, template) for digit in wanted], steps=STUDENT_STEPS, seed=SEED)
        _print_line(f'student, "{template}"', wanted, other, reference)
    rounded = draw(load_pipeline(student, torch.bfloat16), prompts, steps=STUDENT_STEPS, seed=SEED)
    _print_line("student in BF16", wanted, rounded, drawn, against="its FP32 run")


def _print_line(
    name: str,
    wanted: Sequence[Digit],
    pictures: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8] | None,
    *,
    against: str = "the teacher's 16 steps",
) -> None:
    digits, colors = shares_right(wanted, pictures)
    distance = "" if reference is None else f"   {psnr(pictures, reference):.1f} dB from {against}"
    print(f"{name:32} digit {digits:.3f}   colour {colors:.3f}{distance}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--count", type=int, default=240, help="pictures of each kind")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    evaluate(chosen.student, chosen.teacher, chosen.count)


if __name__ == "__main__":
    main()
