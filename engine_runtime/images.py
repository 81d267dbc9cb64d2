"""Pictures to bytes: the same picture gives the same bytes, on every machine with the same Pillow."""

from __future__ import annotations

import io
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine_runtime.errors import InvalidRequestError


class OutputFormat(StrEnum):
    """How a picture leaves the pipeline."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"
    RAW = "raw"  # The array's bytes in C order; the axes are in the metadata.


CONTENT_TYPES = {
    OutputFormat.PNG: "image/png",
    OutputFormat.WEBP: "image/webp",
    OutputFormat.JPEG: "image/jpeg",
    OutputFormat.RAW: "application/octet-stream",
}
# PNG level 1: at 1024² a third of level 6's time for a tenth more bytes. WebP and JPEG: visually lossless, without optional passes.
_OPTIONS: dict[OutputFormat, dict[str, int]] = {
    OutputFormat.PNG: {"compress_level": 1},
    OutputFormat.WEBP: {"quality": 90, "method": 2},
    OutputFormat.JPEG: {"quality": 92, "subsampling": 0},
}


def parse_output_format(name: str) -> OutputFormat:
    """Read the name of a format.

    Raises:
        InvalidRequestError: There is no such format; the message lists those there are.
    """
    try:
        return OutputFormat(name.lower())
    except ValueError:
        raise InvalidRequestError(f"output format {name} does not exist; use one of {', '.join(OutputFormat)}") from None


def encoded_image(picture: npt.NDArray[np.uint8], format: OutputFormat) -> bytes:
    """Encode a picture UINT8 [H, W, 3], sRGB; `raw` takes any array."""
    if format is OutputFormat.RAW:
        return np.ascontiguousarray(picture).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format=format.value, **_OPTIONS[format])
    return buffer.getvalue()


def thumbnail(picture: npt.NDArray[np.uint8], longest_side: int = 256) -> npt.NDArray[np.uint8]:
    """Shrink a picture UINT8 [H, W, 3] for a preview, keeping its proportions; smaller ones stay as they are."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((longest_side, longest_side), Image.Resampling.BOX)
    return np.asarray(image)
