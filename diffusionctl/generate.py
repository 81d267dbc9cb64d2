"""`diffusionctl generate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from diffusionctl.errors import ServerError, UsageError
from engine_runtime.client import generate
from engine_runtime.errors import GenerationError

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
        UsageError: the suffix of `out` is no picture format, or its folder does not exist.
        ServerError: no server at `url`, or it refused the request.
    """
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"{out} has no suffix of a picture format; use one of {', '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} into")
    try:
        _draw(request, out, url, as_json=as_json)
    except GenerationError as error:
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
        path = out.with_suffix(f".step-{answer.metadata['step']}{out.suffix}") if answer.is_preview else out
        path.write_bytes(answer.data)
        if as_json:
            print(json.dumps({"path": str(path), **answer.metadata}))
        else:
            Console(highlight=False).print(f"{path}  seed {answer.metadata.get('seed')}", soft_wrap=True)
