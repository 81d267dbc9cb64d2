"""Claims about pictures as bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine_runtime.errors import InvalidRequestError
from engine_runtime.images import OutputFormat, encoded_image, parse_output_format, thumbnail

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_png_loses_nothing():
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded_image(PICTURE, OutputFormat.PNG)))), PICTURE)


@pytest.mark.parametrize("output_format", list(OutputFormat))
def test_the_same_picture_gives_the_same_bytes(output_format):
    assert encoded_image(PICTURE, output_format) == encoded_image(PICTURE.copy(), output_format)


def test_thumbnails_keep_proportions_and_never_grow():
    assert thumbnail(PICTURE, 32).shape == (24, 32, 3)
    assert thumbnail(PICTURE, 256).shape == PICTURE.shape


def test_an_unknown_format_lists_those_there_are():
    with pytest.raises(InvalidRequestError, match="use one of png, webp, jpeg, raw"):
        parse_output_format("gif")
