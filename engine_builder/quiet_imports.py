"""Imports that warn of each other's versions: a user who builds an engine can do nothing about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import without warnings; for imports made where they are needed, for ModelOpt's takes longer than most stages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ModelOpt 0.47 and torch 2.15 warn of each other while they are imported.
        yield
