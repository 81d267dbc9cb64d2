"""What the operator sets and its containers read has one name."""

from __future__ import annotations

from diffusion_api.environment import STORE_URI_VARIABLE
from tests.support.builds import REPOSITORY

PACKAGES = ("diffusion_api", "diffusionctl", "engine_builder", "engine_runtime", "operator")


def test_the_bucket_s_variable_is_written_once() -> None:
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    writing = [path.relative_to(REPOSITORY).as_posix() for path in sources if f'"{STORE_URI_VARIABLE}"' in path.read_text(encoding="utf-8")]
    assert writing == ["diffusion_api/environment.py"]
