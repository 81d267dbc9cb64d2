"""What a command refuses before it does anything that takes long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from diffusionctl import __main__ as command_line
from diffusionctl import generate as generating
from diffusionctl import run
from diffusionctl.app import app
from diffusionctl.errors import CommandError, ServerError, UsageError
from engine_runtime.seeds import MAX_SEED
from engine_runtime.triton import server
from engine_runtime.triton.installation import TritonNotFoundError
from engine_runtime.triton.server import LocalTriton, TritonPorts, TritonStartError

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits.yaml"


def refusal(*arguments: object) -> BaseException | None:
    return CliRunner().invoke(app, list(map(str, arguments))).exception


def test_a_picture_that_could_not_be_written_is_not_drawn(tmp_path: Path) -> None:
    error = refusal("generate", "a red digit seven", "--out", tmp_path / "nowhere" / "seven.png", "--url", "localhost:1")
    assert isinstance(error, UsageError)
    assert "nowhere" in str(error)


@pytest.mark.parametrize("seed", [2**53 - 1, MAX_SEED], ids=["the largest that is printed", "the largest"])
def test_a_seed_that_was_printed_can_be_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    asked = []
    monkeypatch.setattr(generating, "generate", lambda _url, _prompt, **options: asked.append(options["seed"]) or ())
    done = CliRunner().invoke(app, ["generate", "a red digit seven", "--out", str(tmp_path / "seven.png"), "--seed", str(seed)])
    assert (done.exit_code, asked) == (0, [seed]), done.output


def test_a_seed_that_no_server_takes_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["generate", "a", "--out", str(tmp_path / "seven.png"), "--seed", str(MAX_SEED + 1)])
    assert done.exit_code == 2


def test_run_looks_for_triton_before_it_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise TritonNotFoundError("run `make serve-env`")

    monkeypatch.setattr(run, "find_triton", missing)
    monkeypatch.setattr(run, "build_file", lambda *_, **__: pytest.fail("it built"))
    with pytest.raises(ServerError, match="serve-env"):
        run.run_file(EXAMPLE, tmp_path, ports=TritonPorts())


def test_run_waits_as_long_for_the_engine_to_load_as_the_file_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(self: LocalTriton) -> LocalTriton:
        raise TritonStartError(f"not ready after {self._ready_seconds} s")

    monkeypatch.setattr(run, "find_triton", lambda: "an installation")
    monkeypatch.setattr(run, "build_file", lambda *_, **__: SimpleNamespace(path=tmp_path))
    monkeypatch.setattr(server, "link_model_repository", lambda *_: None)
    monkeypatch.setattr(LocalTriton, "__enter__", start)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    file = example_with(tmp_path, ("  serving:\n", "  serving:\n    startupTimeoutSeconds: 77\n"))
    with pytest.raises(ServerError, match=r"not ready after 77\.0 s"):
        run.run_file(file, tmp_path, ports=TritonPorts())


@pytest.mark.parametrize("flag", [(), ("--simulate-verification",)], ids=["engine", "simulated"])
def test_the_report_of_what_is_not_built_says_how_to_build_it(tmp_path: Path, flag: tuple[str, ...]) -> None:
    error = refusal("report", EXAMPLE, "--store", tmp_path, *flag)
    assert isinstance(error, CommandError)
    assert f"diffusionctl build {EXAMPLE}{' '.join(('', *flag))} --store {tmp_path}`" in str(error)


def test_a_page_that_could_not_be_written_is_said_before_its_engine_is_looked_for(tmp_path: Path) -> None:
    error = refusal("report", EXAMPLE, "--store", tmp_path, "--out", tmp_path / "nowhere" / "page.html")
    assert isinstance(error, UsageError)
    assert "there is no folder" in str(error)


POD = "apiVersion: v1\nkind: Pod\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; write one DiffusionDeployment into it"),
        ("---\n", "is empty"),
        (f"{POD}---\n{POD}", "holds Pod, Pod, and no object of kind DiffusionDeployment; give a file with one"),
        ("- a\n", "holds something without a kind, and no"),
        ("kind: DiffusionDeploymnt\n", "kind DiffusionDeploymnt is not known; did you mean DiffusionDeployment?"),
        ("kind: DiffusionDeployment\n---\nkind: DiffusionDeployment\n", "holds 2 objects of kind DiffusionDeployment; give each a file"),
        ("kind: [\n", "is not YAML: line 2, column 1: expected the node content, but found '<stream end>'; check indentation"),
        ("spec:\n\tmodel: x\n", "is not YAML: line 2, column 1: found character '\\t' that cannot start any token; YAML takes no tabs"),
    ],
)
def test_a_file_that_is_no_deployment_is_refused_with_what_it_is_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    error = refusal("validate", file)
    assert isinstance(error, UsageError)
    assert str(error).startswith(str(file))
    assert said in str(error)


def test_several_mistakes_are_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(EXAMPLE.read_text().replace("width: 64", "width: 63").replace("minPSNR: 35", "minPSNR: high"))
    assert str(refusal("validate", file)).splitlines() == [
        f"{file} has 2 mistakes:",
        "  spec.shapes[0].width: 63 is not a multiple of 16; use 48 or 64",
        "  spec.optimization.qualityBudget.minPSNR: expected a number, not text (high)",
    ]


WITHOUT_BUDGET = ("{minPSNR: 35}", "{}")
NVFP4_ON_L4 = ("{format: Auto}", "{format: NVFP4}"), ("{product: CPU}", "{product: NVIDIA-L4}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([WITHOUT_BUDGET], "spec.optimization.qualityBudget: bounds nothing"),
        (NVFP4_ON_L4, "spec.optimization.quantization.format: NVIDIA-L4 (compute capability 8.9) cannot run NVFP4"),
    ],
    ids=["no budget", "no kernels"],
)
@pytest.mark.parametrize("command", ["validate", "plan", "build", "run"])
def test_what_is_well_written_and_cannot_be_done_is_refused_by_every_command(
    tmp_path: Path, command: str, changes: list[tuple[str, str]], said: str
) -> None:
    file = example_with(tmp_path, *changes)
    error = refusal(command, file, *(() if command == "validate" else ("--store", tmp_path / "store")))
    assert isinstance(error, UsageError)
    assert str(error).startswith(f"{file}: {said}")
    assert not (tmp_path / "store").exists()


def example_with(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the example into a folder with pieces of its text replaced."""
    text = EXAMPLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "file.yaml"
    file.write_text(text)
    return file


def test_a_relative_path_that_is_not_there_is_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text(EXAMPLE.read_text().replace("digits/digits-klein", "nowhere"))
    error = refusal("plan", "file.yaml", "--store", tmp_path)
    assert str(error).startswith(f"file://nowhere: there is no {tmp_path}/nowhere; check the path")


def test_a_plan_explains_its_columns(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["plan", str(EXAMPLE), "--store", str(tmp_path)]).stdout
    assert "Expected speed: relative to the engine that is not quantized" in said
    assert "Simulated:" not in said
    file = EXAMPLE.parent / "formats" / "nvfp4-max.yaml"
    assert "Simulated: this accelerator has no kernels" in CliRunner().invoke(app, ["plan", str(file), "--store", str(tmp_path)]).stdout


def test_a_folder_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise PermissionError(13, "Permission denied", "/store")

    monkeypatch.setattr(command_line, "app", refused)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 64
    assert "/store: Permission denied; give the builder a folder" in capsys.readouterr().err
