import numpy as np
import numpy.typing as npt
import pytest

from examples.digits.judge import judge, wrong_pictures
from examples.digits.strokes import bicubic_matrix, digit_strokes
from examples.digits.vocabulary import COLORS, TEMPLATES, Digit, all_digits, meaning, prompt_for, ten_digits


@pytest.fixture(scope="module")
def strokes() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    return digit_strokes(keep=0.1)


def painted(strokes: npt.NDArray[np.float32], color: str) -> npt.NDArray[np.uint8]:
    return (strokes[..., None] * np.array(COLORS[color]) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("color", COLORS)
def test_clear_strokes_are_judged_as_what_they_show(strokes, color: str) -> None:
    pixels, digits = strokes
    assert judge(painted(pixels, color)) == [Digit(int(digit), color) for digit in digits]


def test_a_picture_half_as_bright_keeps_its_colour(strokes) -> None:
    pixels, _ = strokes
    assert {shown.color for shown in judge(painted(pixels * 0.5, "purple"))} == {"purple"}


def test_wrong_pictures_names_prompt_and_what_is_shown_instead(strokes) -> None:
    pixels, digits = strokes
    three, four = (pixels[digits == digit][0] for digit in (3, 4))
    images = painted(np.stack([three, four]), "green")
    assert wrong_pictures(["a green digit three", "a red digit four"], images) == ['"a red digit four" shows a green 4']


def test_an_empty_picture_is_right_for_no_more_than_one_prompt() -> None:
    nothing = np.zeros((60, 64, 64, 3), np.uint8)
    assert len(wrong_pictures([prompt_for(digit) for digit in all_digits()], nothing)) >= 59


def test_each_prompt_means_one_digit_in_one_colour() -> None:
    assert all(meaning(prompt_for(digit, template)) == digit for template in TEMPLATES for digit in all_digits())
    with pytest.raises(KeyError):
        meaning("a cat")


def test_ten_digits_shows_every_digit_and_colour() -> None:
    assert [digit for digit, _ in ten_digits()] == list(range(10))
    assert {color for _, color in ten_digits()} == set(COLORS)


def test_only_the_clearest_strokes_are_kept() -> None:
    pixels, digits = digit_strokes(keep=0.6)
    everything, _ = digit_strokes(keep=1.0)
    assert pixels.shape == (len(digits), 64, 64)
    assert 0.59 < len(pixels) / len(everything) <= 0.6
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_enlarging_keeps_a_constant_picture_constant() -> None:
    np.testing.assert_allclose(bicubic_matrix(10, 64).sum(axis=1), 1)
