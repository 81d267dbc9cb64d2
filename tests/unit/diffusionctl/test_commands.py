"""What a command refuses before it does anything that takes long."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffusionctl import __main__ as command_line
from diffusionctl import run
from diffusionctl.app import app
from diffusionctl.errors import CommandError, ServerError, UsageError
from engine_runtime.triton.installation import TritonNotFoundError
from engine_runtime.triton.server import TritonPorts

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits.yaml"


def refusal(*arguments: object) -> BaseException | None:
    return CliRunner().invoke(app, list(map(str, arguments))).exception


def test_a_picture_that_could_not_be_written_is_not_drawn(tmp_path: Path) -> None:
    error = refusal("generate", "a red digit seven", "--out", tmp_path / "nowhere" / "seven.png", "--url", "localhost:1")
    assert isinstance(error, UsageError)
    assert "nowhere" in str(error)


def test_run_looks_for_triton_before_it_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise TritonNotFoundError("run `make serve-env`")

    monkeypatch.setattr(run, "find_triton", missing)
    monkeypatch.setattr(run, "build_file", lambda *_, **__: pytest.fail("it built"))
    with pytest.raises(ServerError, match="serve-env"):
        run.run_file(EXAMPLE, tmp_path, ports=TritonPorts())


@pytest.mark.parametrize("flag", [(), ("--simulate-verification",)], ids=["engine", "simulated"])
def test_the_report_of_what_is_not_built_says_how_to_build_it(tmp_path: Path, flag: tuple[str, ...]) -> None:
    error = refusal("report", EXAMPLE, "--store", tmp_path, *flag)
    assert isinstance(error, CommandError)
    assert f"diffusionctl build {EXAMPLE}{' '.join(('', *flag))}`" in str(error)


def test_a_folder_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise PermissionError(13, "Permission denied", "/store")

    monkeypatch.setattr(command_line, "app", refused)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 64
    assert "/store: Permission denied; give the builder a folder" in capsys.readouterr().err
