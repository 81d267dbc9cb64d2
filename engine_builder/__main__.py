"""`python -m engine_builder build JOB.yaml --store DIR`: the builder as it runs in a pod.

At a terminal it shows bars; elsewhere it prints JSON lines, of which the last is the result, and writes that line to the container's
termination log, from which the operator reads it. Exit codes are those of `engine_builder.errors`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import yaml
from rich.console import Console

from diffusion_api.build_job import BuildJob
from diffusion_api.parsing import InvalidSpecError, parse_build_job
from engine_builder.build import BuildSettings, BuiltEngine, build_engine
from engine_builder.errors import BuildError, InvalidJobError
from engine_builder.failures import as_build_error
from engine_builder.progress import TERMINATION_LOG, BuildProgress, JsonLinesProgress, RichProgress
from engine_builder.store import Store

CREDENTIALS_VARIABLE = "DIFFUSION_CREDENTIALS_DIR"
TERMINATION_MESSAGE_LIMIT = 4096  # bytes; Kubernetes cuts longer ones


def main(arguments: list[str] | None = None) -> int:
    """Run the builder and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = _success(_build(options))
        code = 0
    except Exception as error:  # Whatever it is, the operator reads one sentence and one exit code; a bug's traceback is in the log.
        failure = as_build_error(error)
        if failure is not error:
            traceback.print_exc()
        result, code = _failure(failure), failure.exit_code
    print(json.dumps(result, ensure_ascii=False), flush=True)
    _write_termination_log(options.termination_log, result)
    return code


def read_job(path: Path) -> BuildJob:
    """Read a job file.

    Raises:
        InvalidJobError: no such file, no YAML, or a wrong field; each is named.
    """
    try:
        return parse_build_job(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidJobError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidJobError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except InvalidSpecError as error:
        raise InvalidJobError(f"{path}: {error}") from None


def read_credentials(folder: Path | None) -> Mapping[str, str]:
    """Read a mounted Secret: one file a key.

    Raises:
        InvalidJobError: it is not there, or a value is no text.
    """
    if folder is None:
        return {}
    try:
        return {path.name: path.read_text(encoding="utf-8").strip() for path in sorted(folder.iterdir()) if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidJobError(f"the credentials in {folder} (${CREDENTIALS_VARIABLE}) cannot be read: {error}") from None


def _build(options: argparse.Namespace) -> BuiltEngine:
    job = read_job(options.job)
    folder = os.environ.get(CREDENTIALS_VARIABLE)
    settings = BuildSettings(options.job.parent.resolve(), read_credentials(Path(folder) if folder else None))
    store = Store(options.store)
    if sys.stderr.isatty():
        with RichProgress(Console(stderr=True, highlight=False)).live() as bars:
            return build_engine(job, store, settings, progress=bars)
    progress: BuildProgress = JsonLinesProgress()
    return build_engine(job, store, settings, progress=progress)


def _success(engine: BuiltEngine) -> dict[str, object]:
    report = engine.report
    return {
        "event": "result",
        "succeeded": True,
        "engineKey": report.engine_key,
        "path": str(engine.path),
        "reused": engine.reused,
        "recipe": report.recipe.label,
        "simulated": report.simulated,
        "quality": report.quality.to_wire(),
        "latencyMilliseconds": report.comparison.optimized.median_ms if report.comparison else None,
    }


def _failure(error: BuildError) -> dict[str, object]:
    return {"event": "result", "succeeded": False, "error": type(error).__name__, "exitCode": error.exit_code, "message": str(error)}


def termination_message(result: Mapping[str, object]) -> bytes:
    """Return the result as one JSON line that Kubernetes keeps whole; a message that is too long loses its end."""
    line = json.dumps(result, ensure_ascii=False).encode()
    if len(line) <= TERMINATION_MESSAGE_LIMIT:
        return line
    message = str(result["message"])
    kept = len(message)
    while len(line) > TERMINATION_MESSAGE_LIMIT:
        kept -= len(line) - TERMINATION_MESSAGE_LIMIT if kept > TERMINATION_MESSAGE_LIMIT else 16
        line = json.dumps({**result, "message": f"{message[:kept]} …"}, ensure_ascii=False).encode()
    return line


def _write_termination_log(path: Path, result: Mapping[str, object]) -> None:
    if path.exists():
        path.write_bytes(termination_message(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine_builder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build a job's engine, or find it in the store")
    build.add_argument("job", type=Path, help="YAML file of kind BuildJob")
    build.add_argument("--store", type=Path, required=True, help="folder of the engine store")
    build.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG), help="file that gets the result, where it exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
