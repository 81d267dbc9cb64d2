"""The last line that the builder prints, and the form of it that fits into a pod's termination message, where the operator reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from diffusion_api.engine import engine_result
from engine_builder.build import BuiltEngine
from engine_builder.errors import BuildError
from engine_builder.evaluation.budget import quality_summary

TERMINATION_MESSAGE_LIMIT = 4096  # bytes; Kubernetes cuts longer ones
ELLIPSIS = " …"
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What JSON leaves as it is and `str.splitlines` ends a line at."""

ResultLine = Mapping[str, object]


def success_line(engine: BuiltEngine, store: Path) -> ResultLine:
    """Return the line of a build that has its engine; `result` is what the operator puts into the engine's status.

    Args:
        engine: The engine.
        store: Root of the store that it lies in.
    """
    report = engine.report
    summary = quality_summary(report.quality, report.job.optimization.quality_budget)
    artifact = engine.path.relative_to(store.absolute()).as_posix()
    return {
        "event": "result",
        "succeeded": True,
        "engineKey": report.engine_key,
        "path": str(engine.path),
        "reused": engine.reused,
        "result": engine_result(report, artifact=artifact, quality_summary=summary).to_wire(),
    }


def removal_line(removed: Sequence[str]) -> ResultLine:
    """Return the line of a removal; `removed` has the folders that are gone, none where there was nothing to remove."""
    return {"event": "result", "succeeded": True, "removed": list(removed)}


def failure_line(error: BuildError) -> ResultLine:
    """Return the line of anything that failed."""
    return {"event": "result", "succeeded": False, "error": type(error).__name__, "exitCode": error.exit_code, "message": str(error)}


def json_line(line: ResultLine) -> str:
    """Return a line as JSON that is one line for every reader."""
    return json.dumps(line, ensure_ascii=False).translate(_LINE_ENDS)


def termination_message(line: ResultLine) -> bytes:
    """Return a line as JSON that Kubernetes keeps whole.

    What is too long loses, in this order: the folder, warnings from the last on, names of removed folders, the formats by component,
    both latencies, the words on quality, the ends of the recipe's label and of the message. What the operator cannot do without stays.
    """
    shortened: dict[str, Any] = deepcopy(dict(line))
    result = shortened.get("result", {})
    recipe = result.get("recipe", {})
    _drop(shortened, shortened, "path")
    for texts in (result.get("warnings", []), shortened.get("removed", [])):
        while texts and _excess(shortened):
            texts.pop()
    for part, name in ((recipe, "components"), (result, "unoptimizedLatency"), (result, "latency"), (result, "qualitySummary")):
        _drop(shortened, part, name)
    _cut(shortened, recipe, "label")
    _cut(shortened, shortened, "message")
    return _encoded(shortened)


def _drop(line: ResultLine, part: dict[str, Any], name: str) -> None:
    if _excess(line):
        part.pop(name, None)


def _cut(line: ResultLine, part: dict[str, Any], name: str) -> None:
    text = str(part.get(name, ""))
    kept = len(text)
    while kept > 0 and (excess := _excess(line)):
        kept = max(0, kept - max(excess // 6, 16))  # A character is at most 6 bytes of JSON: this never cuts far too much.
        part[name] = text[:kept] + ELLIPSIS


def _excess(line: ResultLine) -> int:
    return max(0, len(_encoded(line)) - TERMINATION_MESSAGE_LIMIT)


def _encoded(line: ResultLine) -> bytes:
    return json_line(line).encode(errors="replace")
