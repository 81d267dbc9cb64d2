"""Checkpoints of the families' tests, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from tests.builder import tiny_models

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session", autouse=True)
def _no_progress_bars() -> None:
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def student() -> Path:
    return REPOSITORY / "examples" / "digits" / "digits-klein"


@pytest.fixture(scope="session")
def teacher() -> Path:
    return REPOSITORY / "tests" / "models" / "digits-teacher"


@pytest.fixture(scope="session")
def tiny_klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.flux2_klein(tmp_path_factory.mktemp("flux2") / "klein", distilled=False)


@pytest.fixture(scope="session")
def tiny_dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.flux2_dev(tmp_path_factory.mktemp("flux2") / "dev")
