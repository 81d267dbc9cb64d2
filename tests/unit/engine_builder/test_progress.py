from __future__ import annotations

import io
import json

from rich.console import Console

from engine_builder.progress import JsonLinesProgress, RichProgress


def test_a_pod_prints_one_json_object_a_line():
    stream = io.StringIO()
    progress = JsonLinesProgress(stream)
    progress.stage_started("export", "vae")
    progress.advance("export", 1, 4)
    progress.stage_finished("export", 1.234, reused=False)
    progress.message("[brackets] stay")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert events == [
        {"event": "started", "stage": "export", "detail": "vae"},
        {"event": "progress", "stage": "export", "percent": 25},
        {"event": "finished", "stage": "export", "seconds": 1.23, "reused": False},
        {"event": "message", "message": "[brackets] stay"},
    ]


def test_a_terminal_shows_a_bar_a_stage_and_what_was_reused():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with RichProgress(console).live() as progress:
        progress.stage_started("fetch", "file://x")
        progress.advance("fetch", 5, 10)
        progress.stage_finished("fetch", 0.5, reused=True)
    text = console.file.getvalue()
    assert "fetch" in text
    assert "reused" in text


def test_a_message_is_never_read_as_markup():
    console = Console(file=io.StringIO(), width=100)
    with RichProgress(console).live() as progress:
        progress.message("spec.shapes[0]: [red]x")
    assert "spec.shapes[0]: [red]x" in console.file.getvalue()
