"""Pictures inside the HTML file: reference, optimized and their difference, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engine_builder.evaluation.metrics import Pictures, psnr, worst_first

DIFFERENCE_GAIN = 8
MAX_SHOWN = 12
MAX_SIDE = 512
SMALL_SIDE = 128
JPEG_QUALITY = 90


@dataclass(frozen=True)
class ReportPictures:
    """What the reference and the optimized model drew for the same prompts and seeds."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    reference: Pictures
    """UINT8 [N, H, W, 3]."""
    optimized: Pictures
    """UINT8 [N, H, W, 3]."""


@dataclass(frozen=True)
class PictureRow:
    """One prompt of the report."""

    prompt: str
    seed: int
    psnr_db: float
    is_worst: bool
    reference: str
    optimized: str
    difference: str


def picture_rows(pictures: ReportPictures) -> list[PictureRow]:
    """Return the worst pair first, then others in their order, twelve at most."""
    order = worst_first(pictures.reference, pictures.optimized)
    values = psnr(pictures.reference, pictures.optimized)
    shown = [order[0], *(index for index in range(len(order)) if index != order[0])][:MAX_SHOWN]
    return [
        PictureRow(
            prompt=pictures.prompts[index],
            seed=pictures.seeds[index],
            psnr_db=float(values[index]),
            is_worst=index == order[0],
            reference=data_uri(pictures.reference[index]),
            optimized=data_uri(pictures.optimized[index]),
            difference=data_uri(difference(pictures.reference[index], pictures.optimized[index])),
        )
        for index in shown
    ]


def is_small(pictures: ReportPictures) -> bool:
    """True where pictures are shown larger than they are, so their pixels should stay sharp."""
    return bool(pictures.reference.shape[2] <= SMALL_SIDE)


def difference(reference: Pictures, optimized: Pictures) -> Pictures:
    """Return |reference − optimized| × 8, cut at white."""
    amplified = np.abs(reference.astype(np.int16) - optimized.astype(np.int16)) * DIFFERENCE_GAIN
    return np.asarray(np.minimum(amplified, 255), dtype=np.uint8)


def data_uri(picture: Pictures) -> str:
    """Return a picture as a data URI: PNG where it is small, else a JPEG of at most 512 pixels a side, or the file has 50 MB."""
    image = Image.fromarray(picture)
    file = io.BytesIO()
    if max(image.size) <= MAX_SIDE // 2:
        image.save(file, format="PNG", optimize=True)
        return _encoded("png", file)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    image.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _encoded("jpeg", file)


def _encoded(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
