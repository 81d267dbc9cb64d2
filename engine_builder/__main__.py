"""`python -m engine_builder build JOB.yaml --store DIR` and `… remove ARTIFACT --store DIR`: the builder as it runs in a pod.

With DIFFUSION_STORE_URI=s3://bucket/prefix, DIR is this machine's copy of that bucket.
At a terminal a build shows bars; elsewhere it prints JSON lines, of which the last is the result, and writes that line to the container's
termination log, from which the operator reads it. Exit codes are those of `engine_builder.errors`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from rich.console import Console

from diffusion_api.build_job import BuildJob
from diffusion_api.environment import STORE_URI_VARIABLE
from diffusion_api.parsing import InvalidSpecError, parse_build_job
from engine_builder.build import ENGINE_STAGE, BuildSettings, build_engine
from engine_builder.errors import InvalidJobError
from engine_builder.failures import as_build_error
from engine_builder.fetch.local import folder_of_files
from engine_builder.progress import TERMINATION_LOG, BuildProgress, JsonLinesProgress, RichProgress
from engine_builder.removal import STAGES_KEPT_HOURS, remove_artifact
from engine_builder.result_line import ResultLine, failure_line, json_line, removal_line, success_line, termination_message
from engine_builder.store import Store
from engine_runtime.sigterm import end_on_sigterm

CREDENTIALS_VARIABLE = "DIFFUSION_CREDENTIALS_DIR"
FETCH_STAGE = "fetch"
"""Its result stays out of a bucket: the checkpoint comes from its own source as fast."""


def main(arguments: list[str] | None = None) -> int:
    """Run the builder and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        result, code = options.run(options), 0
    except Exception as error:  # Whatever it is, the operator reads one sentence and one exit code; a bug's traceback is in the log.
        failure = as_build_error(error)
        if failure is not error:
            traceback.print_exc()
        result, code = failure_line(failure), failure.exit_code
    print(json_line(result), flush=True)
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


def _remove(options: argparse.Namespace) -> ResultLine:
    say = JsonLinesProgress().message
    removed = remove_artifact(
        _store(options.store, say),
        options.artifact,
        unused_seconds=3600 * options.unused_hours,
        on_wait=lambda holder: say(f"{holder} uses it; waiting"),
    )
    return removal_line(removed)


def _build(options: argparse.Namespace) -> ResultLine:
    if sys.stderr.isatty():
        with RichProgress(Console(stderr=True, highlight=False)).live() as bars:
            return _built(options, bars)
    return _built(options, JsonLinesProgress())


def _built(options: argparse.Namespace, progress: BuildProgress) -> ResultLine:
    job = read_job(options.job)
    folder = os.environ.get(CREDENTIALS_VARIABLE)
    settings = BuildSettings(folder_of_files(options.job), read_credentials(Path(folder) if folder else None), hash_reused=True)
    store = _store(options.store, progress.message)
    with store.timings():
        return success_line(build_engine(job, store, settings, progress=progress), store.root)


def _store(root: Path, say: Callable[[str], None]) -> Store:
    """Open the store, over the bucket that the environment names; only then is anything of S3 imported."""
    uri = os.environ.get(STORE_URI_VARIABLE)
    if not uri:
        return Store(root)
    from engine_builder.store.bucket_store import open_bucket_store  # noqa: PLC0415

    return open_bucket_store(root, uri, required=(ENGINE_STAGE,), local=(FETCH_STAGE,), say=say)


def _write_termination_log(path: Path, result: ResultLine) -> None:
    if path.exists():
        path.write_bytes(termination_message(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine_builder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build a job's engine, or find it in the store")
    build.add_argument("job", type=Path, help="YAML file of kind BuildJob")
    build.set_defaults(run=_build)
    remove = commands.add_parser("remove", help="remove one artifact, and what other builds no longer need of what it was made from")
    remove.add_argument("artifact", help="its path below the store, for example artifacts/engine-0123456789abcdef")
    hours = f"stage results that nothing was made from stay until they were unused for so long (default {STAGES_KEPT_HOURS:g})"
    remove.add_argument("--unused-hours", type=float, default=STAGES_KEPT_HOURS, help=hours)
    remove.set_defaults(run=_remove)
    for command in (build, remove):
        command.add_argument("--store", type=Path, required=True, help="folder of the engine store")
        log = "file that gets the result, where it exists"
        command.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG), help=log)
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
