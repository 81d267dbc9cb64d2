"""What a builder pod says: progress in the lines of its log, the end in its termination message. All of it may be cut or missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from diffusion_api.engine import BuildProgress, EngineResult

STAGES = ("fetch", "reference", "quantize", "candidate", "step-cache", "export", "compile", "verify", "engine")
"""The builder's stages in order; a test holds them to the builder's own."""


@dataclass(frozen=True)
class BuilderEnd:
    """How a builder ended."""

    succeeded: bool
    exit_code: int | None = None
    message: str = ""
    """Its own sentence, where it failed."""
    result: EngineResult | None = None
    """None where it failed, or is of a release that tells no result."""


def builder_end(text: str) -> BuilderEnd | None:
    """Read a termination message; None where the builder did not write it, as when it was killed.

    Args:
        text: The message, or the last lines of the log, which Kubernetes puts in its place.
    """
    for event in reversed(list(_events(text))):
        if event.get("event") == "result":
            code = event.get("exitCode")
            return BuilderEnd(
                succeeded=event.get("succeeded") is True,
                exit_code=code if isinstance(code, int) else None,
                message=str(event.get("message", "")),
                result=_result(event.get("result")),
            )
    return None


def build_progress(log: str) -> BuildProgress | None:
    """Read how far a build is from the last lines of its log; None where they do not say.

    Stages count alike, so the percentage says how many are done, not how long the rest takes.
    """
    for event in reversed(list(_events(log))):
        stage = event.get("stage")
        if stage in STAGES:
            within = {"finished": 100, "progress": event.get("percent", 0)}.get(str(event.get("event")), 0)
            fraction = min(max(within, 0), 100) / 100 if isinstance(within, int) else 0.0
            percent = round(100 * (STAGES.index(str(stage)) + fraction) / len(STAGES))
            return BuildProgress(stage=str(stage), percent=percent, message=str(event.get("detail", ""))[:1024])
    return None


def _events(text: str) -> Iterator[dict[str, object]]:
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # A library's own words, or a line that was cut.
        if isinstance(event, dict):
            yield event


def _result(wire: object) -> EngineResult | None:
    try:
        return EngineResult.model_validate(wire)
    except ValidationError:
        return None
