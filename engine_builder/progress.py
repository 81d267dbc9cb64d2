"""What a build tells while it runs: bars at a terminal, JSON lines in a pod."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

TERMINATION_LOG = "/dev/termination-log"


class BuildProgress(Protocol):
    """Receives what happens in a build."""

    def stage_started(self, stage: str, detail: str = "") -> None:
        """Note that a stage begins."""

    def advance(self, stage: str, done: int, total: int) -> None:
        """Note how far a stage is."""

    def stage_finished(self, stage: str, seconds: float, *, reused: bool) -> None:
        """Note that a stage ended well."""

    def message(self, text: str) -> None:
        """Tell something worth reading."""


@dataclass
class SilentProgress:
    """Says nothing; for tests and `--quiet`."""

    def stage_started(self, stage: str, detail: str = "") -> None:
        """Say nothing."""

    def advance(self, stage: str, done: int, total: int) -> None:
        """Say nothing."""

    def stage_finished(self, stage: str, seconds: float, *, reused: bool) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""


@dataclass
class JsonLinesProgress:
    """One JSON object a line: the operator reads the last line of a pod's log."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)

    def stage_started(self, stage: str, detail: str = "") -> None:
        """Write `{"event": "started", "stage": …}`."""
        self._write(event="started", stage=stage, detail=detail)

    def advance(self, stage: str, done: int, total: int) -> None:
        """Write `{"event": "progress", "stage": …, "percent": …}`."""
        self._write(event="progress", stage=stage, percent=round(100 * done / max(total, 1)))

    def stage_finished(self, stage: str, seconds: float, *, reused: bool) -> None:
        """Write `{"event": "finished", "stage": …, "seconds": …, "reused": …}`."""
        self._write(event="finished", stage=stage, seconds=round(seconds, 2), reused=reused)

    def message(self, text: str) -> None:
        """Write `{"event": "message", "message": …}`."""
        self._write(event="message", message=text)

    def _write(self, **values: object) -> None:
        self.stream.write(json.dumps(values) + "\n")
        self.stream.flush()


class RichProgress:
    """Bars at a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def live(self) -> Iterator[RichProgress]:
        """Show the bars while the block runs."""
        with self._bars:
            yield self

    def stage_started(self, stage: str, detail: str = "") -> None:
        """Show a bar."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=None, detail=detail)
        self._bars.update(self._tasks[stage], detail=detail)

    def advance(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        self.stage_started(stage)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def stage_finished(self, stage: str, seconds: float, *, reused: bool) -> None:
        """Fill the bar."""
        self.stage_started(stage)
        self._bars.update(self._tasks[stage], total=1, completed=1, detail="reused" if reused else f"{seconds:.1f} s")

    def message(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False)
