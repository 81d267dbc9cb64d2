from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from examples.digits.drawing import contact_sheet, draw, load_pipeline
from examples.digits.evaluate_digits import psnr, shares_right
from examples.digits.judge import wrong_pictures
from examples.digits.strokes import bicubic_matrix
from examples.digits.train_digits import main
from examples.digits.training.optimize import learning_rate
from examples.digits.vocabulary import prompt_for, ten_digits

STUDENT = Path(__file__).parents[3] / "examples" / "digits" / "digits-klein"


@pytest.fixture(scope="module")
def student():
    return load_pipeline(STUDENT)


def test_quick_training_writes_teacher_student_and_their_pictures(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--quick"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-klein", "digits-klein.png", "digits-teacher", "digits-teacher.png"]
    with Image.open(tmp_path / "digits-klein.png") as sheet:
        assert sheet.size == (640, 64)
    teacher, student = (load_pipeline(tmp_path / name) for name in ("digits-teacher", "digits-klein"))
    assert (teacher.config.is_distilled, student.config.is_distilled) == (False, True)
    assert {name: p.shape for name, p in student.transformer.named_parameters()} == {
        name: p.shape for name, p in load_pipeline(STUDENT).transformer.named_parameters()
    }


def test_the_committed_student_draws_the_right_digit_in_the_right_colour(student) -> None:
    digits = ten_digits()
    prompts = [prompt_for(digit) for digit in digits]
    pictures = draw(student, prompts, steps=4)
    assert wrong_pictures(prompts, pictures) == []
    assert shares_right(digits, pictures) == (1.0, 1.0)


def test_one_seed_draws_one_picture(student) -> None:
    first, again, other = (draw(student, ["a red digit seven"], steps=4, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert psnr(first, again) == float("inf")
    assert psnr(first, other) < 40


def test_enlarging_equals_bicubic_interpolation_in_torch() -> None:
    picture = torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = interpolate(picture, size=64, mode="bicubic", align_corners=False)[0, 0].numpy()
    matrix = bicubic_matrix(10, 64)
    np.testing.assert_allclose(matrix @ picture[0, 0].numpy() @ matrix.T, expected, atol=1e-12)


def test_a_contact_sheet_lays_pictures_out_in_rows() -> None:
    pictures = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert contact_sheet(pictures, columns=2)[::2, ::2, 0].tolist() == [[0, 1], [2, 3]]


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 1000, 1e-3, warmup=100) for step in (1, 100, 499, 750, 1000)]
    assert rates == pytest.approx([1e-5, 1e-3, 1e-3, 5e-4, 0], abs=1e-9)
