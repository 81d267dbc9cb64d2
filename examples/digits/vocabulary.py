"""The prompts that the digits model understands, and what each asks for."""

from __future__ import annotations

from typing import NamedTuple

COLORS = {
    "red": (1.0, 0.15, 0.1),
    "green": (0.1, 0.9, 0.2),
    "blue": (0.2, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "purple": (0.8, 0.2, 1.0),
    "white": (1.0, 1.0, 1.0),
}
"""RGB in [0, 1]."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("a {c} digit {n}", "a {c} {n}", "{c} {n}", "the digit {n} in {c}", "a {c} digit {d}", "a {c} {d}")
PICTURE_SIZE = 64
"""Width and height in pixels."""
TEXT_TOKENS = 16
"""Prompt length that the model was trained on."""


class Digit(NamedTuple):
    """What a prompt asks for, or what a picture shows."""

    digit: int
    color: str


def prompt_for(wanted: Digit, template: str = TEMPLATES[0]) -> str:
    """Return `a red digit seven` for a red 7."""
    return template.format(c=wanted.color, n=NAMES[wanted.digit], d=wanted.digit)


def all_digits() -> tuple[Digit, ...]:
    """Return every colour of every digit, colours outermost."""
    return tuple(Digit(digit, color) for color in COLORS for digit in range(10))


def ten_digits(first_color: int = 0) -> tuple[Digit, ...]:
    """Return the digits 0 to 9 with colours in turn."""
    colors = tuple(COLORS)
    return tuple(Digit(digit, colors[(digit + first_color) % len(colors)]) for digit in range(10))


def meaning(prompt: str) -> Digit:
    """Return what a prompt asks for.

    Raises:
        KeyError: The prompt is not one that the model was trained on.
    """
    return _MEANINGS[prompt]


_MEANINGS = {prompt_for(digit, template): digit for template in TEMPLATES for digit in all_digits()}
