"""What a failure that nobody foresaw looks like from outside: a sentence, an exit code, and a termination message that is JSON."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder import __main__ as builder
from engine_builder.errors import QualityBudgetError
from engine_builder.failures import as_build_error
from engine_builder.result_line import TERMINATION_MESSAGE_LIMIT
from tests.support.builds import digits_job, write_job


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class SafetensorError(Exception):
    """Named as safetensors'."""


@pytest.mark.parametrize(
    ("error", "code", "cure"),
    [
        (QualityBudgetError("too bad"), 66, "too bad"),
        (MemoryError(), 69, "give the builder more"),
        (OutOfMemoryError("CUDA"), 69, "give the builder more"),
        (PermissionError(errno.EACCES, "Permission denied", "/store"), 64, "/store: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/store"), 64, "may write"),
        (OSError(errno.ENOSPC, "No space left on device"), 75, "enlarge"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), 75, "enlarge"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 75, "enlarge"),
        (SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), 75, "enlarge"),
        (RuntimeError("basic_ios::clear: iostream error"), 75, "disk is full.*enlarge"),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"), 75, "enlarge"),
        (RuntimeError("shape mismatch"), 70, "report it"),
        (OSError(errno.EIO, "Input/output error"), 75, "try again"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 69, r"torch is missing.*pip install"),
        (KeyError("x"), 70, "report it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_has_an_exit_code_and_says_what_to_do(error: Exception, code: int, cure: str) -> None:
    failure = as_build_error(error)
    assert failure.exit_code == code
    with pytest.raises(type(failure), match=cure):
        raise failure


def test_a_bug_leaves_its_traceback_in_the_log_and_a_sentence_in_the_termination_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(builder, "build_engine", broken)
    log = tmp_path / "termination-log"
    log.touch()
    job = write_job(tmp_path, digits_job())
    assert builder.main(["build", str(job), "--store", str(tmp_path / "store"), "--termination-log", str(log)]) == 70
    assert json.loads(log.read_text()) == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "surprise" in json.loads(log.read_text())["message"]


def test_a_missing_folder_of_credentials_is_a_wrong_job(tmp_path: Path) -> None:
    with pytest.raises(builder.InvalidJobError, match="DIFFUSION_CREDENTIALS_DIR"):
        builder.read_credentials(tmp_path / "nowhere")


@given(st.text(max_size=6000).map(lambda text: text * 3) | st.text('é✗\n"', min_size=3000, max_size=9000))
def test_a_long_message_is_cut_so_that_the_termination_message_stays_json(message: str) -> None:
    line = builder.termination_message({"succeeded": False, "message": message})
    assert len(line) <= TERMINATION_MESSAGE_LIMIT
    kept = json.loads(line)["message"]
    assert message.startswith(kept.removesuffix(" …"))
