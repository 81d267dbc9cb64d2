"""At which size an exported graph is compared with torch."""

from __future__ import annotations

import pytest

from diffusion_api.model_spec import Shape
from engine_builder.workflow.exporting import PARITY_PIXELS, parity_shape


@pytest.mark.parametrize("side", [64, 512])
def test_parity_is_measured_at_a_small_size_as_it_is(side):
    assert parity_shape(Shape(width=side, height=side)) == Shape(width=side, height=side)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (Shape(width=2048, height=2048), "512x512"),
        (Shape(width=1920, height=1088), "640x384"),
        (Shape(width=4096, height=16), "4096x16"),
        (Shape(width=768, height=512, frames=25), "64x64x25"),
    ],
    ids=lambda value: value.name if isinstance(value, Shape) else "",
)
def test_parity_of_a_large_size_is_measured_at_a_smaller_one_of_its_form(shape, name):
    found = parity_shape(shape)
    assert found.name == name
    assert found.width * found.height * (found.frames or 1) <= PARITY_PIXELS
