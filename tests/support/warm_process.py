"""Processes that start at once: forked from one that has imported torch and ModelOpt already, which takes any other many seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
"""Whoever forks must have started no thread, which OpenMP and BLAS would."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.warm_process", "tests.support.builder_imports"])


class WarmProcess:
    """The builder's command line in a process of its own. Use as a context manager, which kills what still runs at its end."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = TemporaryDirectory()
        self._errors = Path(self._folder.name) / "stderr"
        reader, writer = _context.Pipe(duplex=False)
        self._process = _context.Process(
            target=_run, daemon=True, args=(list(arguments), {**os.environ, **ENVIRONMENT}, writer, self._errors)
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():  # The first of all processes starts the server, which takes this environment.
                patch.setenv(name, value)
            self._process.start()
        writer.close()
        self._out = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._out.close()
        self._folder.cleanup()

    def lines(self) -> Iterator[str]:
        """Give what it prints, line by line, until its end or until somebody stops asking."""
        yield from self._out

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()

    def wait(self) -> tuple[int, str]:
        """Return its exit code, negative for a signal, and what it wrote to standard error."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode, self._errors.read_text()


def _run(arguments: list[str], environment: dict[str, str], out: Connection, errors: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    from engine_builder.__main__ import main  # noqa: PLC0415  # The server has imported it.

    os.dup2(out.fileno(), 1)
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
    warnings.simplefilter("ignore")
    sys.exit(main(arguments))
