"""`diffusionctl generate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from diffusionctl.errors import ServerError, UsageError
from engine_runtime.client import RequestFailedError, generate

FORMATS = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}


@dataclass(frozen=True)
class PictureRequest:
    """What to draw."""

    prompt: str
    seed: int | None = None
    size: str | None = None
    guidance_scale: float | None = None
    preview_every: int = 0


def generate_picture(request: PictureRequest, out: Path, *, url: str, as_json: bool) -> None:
    """Ask a server for one picture and write it.

    Raises:
        UsageError: the suffix of `out` is no picture format.
        ServerError: no server at `url`, or it refused the request.
    """
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"{out} has no suffix of a picture format; use one of {', '.join(FORMATS)}")
    try:
        _draw(request, out, url, as_json=as_json)
    except RequestFailedError as error:
        raise ServerError(str(error)) from None


def _draw(request: PictureRequest, out: Path, url: str, *, as_json: bool) -> None:
    answers = generate(
        url,
        request.prompt,
        seed=request.seed,
        size=request.size,
        guidance_scale=request.guidance_scale,
        output_format=FORMATS[out.suffix.lower()],
        preview_every=request.preview_every,
    )
    for answer in answers:
        path = out if answer.final else out.with_suffix(f".step-{answer.step}{out.suffix}")
        path.write_bytes(answer.image)
        if as_json:
            print(json.dumps({"path": str(path), "final": answer.final, **answer.metadata}))
        else:
            Console(highlight=False).print(f"{path}  seed {answer.metadata.get('seed')}", soft_wrap=True)
