"""Processes that start at once: forked from one that has imported torch and ModelOpt already, which takes any other many seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
"""Whoever forks must have started no thread, which OpenMP and BLAS would."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.warm_process", "tests.support.builder_imports"])


class WarmProcess:
    """The builder's command line in a process of its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = TemporaryDirectory()
        self._errors = Path(self._folder.name) / "stderr"
        reader, writer = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_run, args=(list(arguments), {**os.environ, **ENVIRONMENT}, writer, self._errors))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():  # The first of all processes starts the server, which takes this environment.
                patch.setenv(name, value)
            self._process.start()
        writer.close()
        self._out = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()

    def lines(self) -> Iterator[str]:
        """Give what it prints, line by line, until its end or until somebody stops asking."""
        yield from self._out

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Return its exit code, negative for a signal, and what it wrote to standard error."""
        self._process.join()
        self._out.close()
        code, errors = self._process.exitcode, self._errors.read_text()
        self._folder.cleanup()
        assert code is not None
        return code, errors


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
