"""Logs: one JSON object a line, each with the object and the reconcile that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

_context: ContextVar[dict[str, str] | None] = ContextVar("reconcile", default=None)


@contextmanager
def reconcile_context(controller: str, namespace: str, name: str, reconcile_id: str) -> Iterator[None]:
    """Put these fields on every line that is logged inside."""
    token = _context.set({"controller": str(controller), "namespace": namespace, "name": name, "reconcileID": reconcile_id})
    try:
        yield
    finally:
        _context.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; an exception becomes the field `exception`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_context.get() or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, the object last."""
        where = _context.get()
        text = f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} {record.levelname:<7} {record.getMessage()}"
        text += f"  [{where['controller']} {where['namespace']}/{where['name']}]" if where else ""
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def configure_logs(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send every logger to one stream.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json` or `text`.
        stream: None: standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Kopf tells of every event of every pod; what the operator makes of it, it says itself.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
