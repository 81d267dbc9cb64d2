from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_operator.planning.builder_output import STAGES, BuilderEnd, build_progress, builder_end
from engine_builder.progress import JsonLinesProgress
from engine_builder.stage_runner import STAGE_VERSIONS
from tests.unit.diffusion_operator.scenes import RESULT


def test_stages_are_the_builder_s():
    assert set(STAGE_VERSIONS) == set(STAGES)


def test_a_success_carries_the_engine_s_result():
    line = json.dumps({"event": "result", "succeeded": True, "result": RESULT.to_wire()})
    assert builder_end(line) == BuilderEnd(True, result=RESULT)


def test_a_failure_carries_code_and_sentence():
    line = json.dumps({"event": "result", "succeeded": False, "exitCode": 65, "message": "it misses vae/"})
    assert builder_end(f"Traceback …\n{line}\n") == BuilderEnd(False, 65, "it misses vae/")


def test_a_success_of_another_release_has_no_result():
    assert builder_end('{"event": "result", "succeeded": true, "path": "/store/x"}') == BuilderEnd(True)


@pytest.mark.parametrize("text", ["", "Killed", '{"event": "progress"}', '{"event": "resu', "[1, 2]", "null"])
def test_a_killed_builder_said_nothing(text):
    assert builder_end(text) is None


@given(st.text() | st.from_regex(r'\{"(event|stage|percent)": ?("result"|"export"|[0-9]{1,40}|null|\[\])\}', fullmatch=True))
def test_no_text_breaks_the_reader(text):
    builder_end(text)
    build_progress(text)


def test_progress_is_what_the_builder_writes():
    log = io.StringIO()
    progress = JsonLinesProgress(log)
    percents = []
    for stage in STAGES:
        progress.stage_started(stage, "work")
        progress.advance(stage, 1, 2)
        percents.append(build_progress(log.getvalue()).percent)
        progress.stage_finished(stage, 1.0, reused=False)
        progress.message("a word")
        found = build_progress(log.getvalue())
        percents.append(found.percent)
        assert found.stage == stage
    assert percents == sorted(percents)
    assert percents[-1] == 100
