"""What a client asks of the `pipeline` model, parsed once; and what it is told beside the picture."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_api.engine_manifest import EngineManifest
from engine_runtime.errors import InvalidRequestError
from engine_runtime.images import CONTENT_TYPES, OutputFormat, encoded_image, parse_output_format
from engine_runtime.requests import GenerationRequest, GenerationResult
from engine_runtime.seeds import MAX_SEED, random_seed

Fields = Mapping[str, npt.NDArray[Any]]
MAX_GUIDANCE_SCALE = 50.0
MAX_PROMPT_BYTES = 65_536


@dataclass(frozen=True)
class PipelineRequest:
    """A request, checked."""

    generation: GenerationRequest
    """What to draw."""
    output_format: OutputFormat
    """How pictures are encoded."""
    preview_every: int
    """A preview after every so many steps; 0 is none."""
    base64: bool
    """True where pictures are wanted as Base64 text, which JSON can carry."""


@dataclass(frozen=True)
class PipelineAnswer:
    """One preview, or the result."""

    image: bytes
    content_type: str
    metadata: str


def parse_request(fields: Fields, manifest: EngineManifest) -> PipelineRequest:
    """Check a request's inputs, each with one element.

    Raises:
        InvalidRequestError: The message says which input is wrong and what it may be.
    """
    generation = GenerationRequest(
        prompt=_prompt(fields),
        seed=_seed(fields),
        size=_size(fields, manifest),
        guidance_scale=_guidance_scale(fields),
    )
    output_format = parse_output_format(_text(fields, "output_format") or OutputFormat.PNG)
    preview_every = int(_element(fields, "preview_every", 0))
    if preview_every < 0:
        raise InvalidRequestError(f"preview_every is {preview_every}; use 0 for no previews, or a number of steps")
    return PipelineRequest(generation, output_format, preview_every, bool(_element(fields, "base64", False)))


def result_answer(request: PipelineRequest, result: GenerationResult, *, queued_seconds: float) -> PipelineAnswer:
    """Encode a result and say how it came about."""
    metadata = {
        "type": "result",
        "seed": result.seed,
        "size": result.size,
        "shape": list(result.output.shape),
        "steps": {"computed": result.steps_computed, "skipped": result.steps_skipped},
        "promptWasCut": result.prompt_was_cut,
        "milliseconds": {
            "queued": _milliseconds(queued_seconds),
            "encode": _milliseconds(result.timings.encode),
            "denoise": _milliseconds(result.timings.denoise),
            "decode": _milliseconds(result.timings.decode),
        },
    }
    return _answer(request, result.output, metadata)


def preview_answer(request: PipelineRequest, picture: npt.NDArray[np.uint8], step: int, steps: int) -> PipelineAnswer:
    """Encode a preview; `step` counts from 1."""
    metadata = {"type": "preview", "step": step, "steps": steps, "shape": list(picture.shape), "seed": request.generation.seed}
    return _answer(request, picture, metadata)


def _answer(request: PipelineRequest, picture: npt.NDArray[Any], metadata: Mapping[str, object]) -> PipelineAnswer:
    # A video leaves as raw frames: what encodes videos is in front of this model.
    output_format = request.output_format if picture.ndim == 3 else OutputFormat.RAW
    image = encoded_image(picture, output_format)
    return PipelineAnswer(base64.b64encode(image) if request.base64 else image, CONTENT_TYPES[output_format], json.dumps(metadata))


def _prompt(fields: Fields) -> str:
    prompt = _text(fields, "prompt")
    if prompt is None:
        raise InvalidRequestError("prompt is missing")
    return prompt


def _seed(fields: Fields) -> int:
    seed = int(_element(fields, "seed", -1))
    if "seed" not in fields:
        return random_seed()
    if seed < 0:
        raise InvalidRequestError(f"seed is {seed}; use 0 to {MAX_SEED}, or leave it out for a random one")
    return seed


def _size(fields: Fields, manifest: EngineManifest) -> str:
    try:
        return manifest.shape_plan(_text(fields, "size") or None).shape.name
    except KeyError as unknown:
        raise InvalidRequestError(unknown.args[0]) from None


def _guidance_scale(fields: Fields) -> float | None:
    if "guidance_scale" not in fields:
        return None
    scale = float(_element(fields, "guidance_scale", 1.0))
    if not (math.isfinite(scale) and 0 <= scale <= MAX_GUIDANCE_SCALE):
        raise InvalidRequestError(f"guidance_scale is {scale}; use 0 to {MAX_GUIDANCE_SCALE:g}")
    return scale


def _text(fields: Fields, name: str) -> str | None:
    value = _element(fields, name, None)
    if value is None or isinstance(value, str):
        return value
    if len(value) > MAX_PROMPT_BYTES:
        raise InvalidRequestError(f"{name} has {len(value)} bytes; at most {MAX_PROMPT_BYTES} are taken")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from None


def _element(fields: Fields, name: str, default: Any) -> Any:
    array = fields.get(name)
    return default if array is None else array.reshape(-1)[0]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
