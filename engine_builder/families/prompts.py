"""Calibration prompts: the checkpoint's own, or a varied built-in set for picture models."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engine_builder.errors import InvalidModelError

OWN_PROMPTS = "calibration_prompts.txt"
"""One prompt a line, beside `model_index.json`."""


def calibration_prompts(folder: Path, built_in: str = "pictures.txt") -> tuple[str, ...]:
    """Return the checkpoint's prompts, or those of a file in `families/prompt_sets/`.

    Raises:
        InvalidModelError: The checkpoint's file holds no prompt.
    """
    own = folder / OWN_PROMPTS
    if own.is_file():
        prompts = _lines(own.read_text(encoding="utf-8"))
        if not prompts:
            raise InvalidModelError(f"{OWN_PROMPTS} holds no prompt; write one a line or remove the file")
        return prompts
    return _lines(files("engine_builder.families").joinpath("prompt_sets", built_in).read_text(encoding="utf-8"))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
