"""A tritonserver on this machine, for `diffusionctl run`, tests and benchmarks: started, watched, and surely stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from diffusion_api.serving import Serving
from engine_runtime.triton.installation import TritonInstallation, find_triton
from engine_runtime.triton.repository import REPOSITORY_FOLDER, link_model_repository

LOCALHOST = "127.0.0.1"
STOP_SECONDS = 20.0
_LOG_LINES = 15
# Run before the server: the kernel ends it when the parent dies. A wrapper and not preexec_fn, which is unsafe beside threads.
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM);"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class TritonStartError(RuntimeError):
    """The server did not become ready; the message ends with what its log says."""


@dataclass(frozen=True)
class TritonPorts:
    """Ports on localhost; 0 is a free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0

    def resolved(self) -> TritonPorts:
        """Return ports with each 0 replaced by one that is free now."""
        with contextlib.ExitStack() as stack:
            free = []
            for _ in range(3):
                probe = stack.enter_context(socket.socket())
                probe.bind((LOCALHOST, 0))
                free.append(probe.getsockname()[1])
        return TritonPorts(self.http or free[0], self.grpc or free[1], self.metrics or free[2])


class LocalTriton:
    """Serves a model repository while the `with` block runs."""

    def __init__(
        self,
        repository: Path,
        *,
        installation: TritonInstallation | None = None,
        ports: TritonPorts | None = None,
        log_file: Path | None = None,
        ready_seconds: float = 120.0,
    ) -> None:
        """Say what to serve; nothing starts before the `with` block.

        Args:
            repository: A model repository.
            installation: The server; None looks for one.
            ports: Where it listens, on localhost alone.
            log_file: Where its log goes; None: into a temporary folder that goes with the server.
            ready_seconds: How long loading may take.
        """
        self._repository = repository
        self._installation = installation or find_triton()
        self._ports = (ports or TritonPorts()).resolved()
        self._log_file = log_file
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()

    @property
    def http_url(self) -> str:
        """For example `http://127.0.0.1:8000`."""
        return f"http://{LOCALHOST}:{self._ports.http}"

    @property
    def grpc_url(self) -> str:
        """For example `127.0.0.1:8001`, as tritonclient takes it."""
        return f"{LOCALHOST}:{self._ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint."""
        return f"http://{LOCALHOST}:{self._ports.metrics}/metrics"

    @property
    def log_path(self) -> Path:
        """The server's log; only while it runs, where no file was given."""
        if self._log_file is None:
            raise RuntimeError("the server is not running and its log was temporary; give log_file to keep it")
        return self._log_file

    def __enter__(self) -> Self:
        """Start and wait until every model is ready.

        Raises:
            TritonStartError: It died or took too long.
        """
        work = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="triton-")))
        self._log_file = self._log_file or work / "tritonserver.log"
        try:
            self._process = self._start(work, self._log_file)
            self._wait_ready(self._process, self._log_file)
        except BaseException:  # Ctrl-C too must leave no server behind; it is raised on.
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def require_running(self) -> None:
        """Check that the server still runs.

        Raises:
            TritonStartError: It ended by itself.
        """
        if self._process is None or self._process.poll() is not None:
            code = "unknown" if self._process is None else self._process.returncode
            raise TritonStartError(f"tritonserver ended with exit code {code}:\n{meaningful_log(self.log_path)}")

    def stop(self) -> None:
        """End the server: politely, then surely. Does nothing where it is not running."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                process.wait()
        if process is not None:
            _kill_group(process)  # Python stubs that outlived it.
        self._stack.close()

    def _start(self, work: Path, log_file: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._command(work)]
        environment = self._installation.environment(os.environ)
        with log_file.open("wb") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _command(self, work: Path) -> list[str]:
        ports = self._ports
        return [
            str(self._installation.binary),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._installation.backend_directory(work)}",
            f"--backend-config=python,shm-region-prefix-name=diffusion_{os.getpid()}_{ports.http}",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-on-error=true",
            "--disable-auto-complete-config",
            *(f"--{name}-address={LOCALHOST}" for name in ("http", "grpc", "metrics")),
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            "--exit-timeout-secs=5",
        ]

    def _wait_ready(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise TritonStartError(f"tritonserver ended with exit code {process.returncode}:\n{meaningful_log(log_file)}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                for url in (f"{self.http_url}/v2/health/ready", self.metrics_url):  # Triton opens the metrics' port last.
                    urllib.request.urlopen(url, timeout=1).close()  # noqa: S310  # Our own http address.
                return
            time.sleep(0.05)
        raise TritonStartError(f"tritonserver was not ready after {self._ready_seconds:.0f} s:\n{meaningful_log(log_file)}")


@contextlib.contextmanager
def served_engine(
    engine: Path, serving: Serving, *, installation: TritonInstallation | None = None, ports: TritonPorts | None = None
) -> Iterator[LocalTriton]:
    """Serve an engine of a store, with a deployment's settings, while the block runs.

    Triton gets links and not the engine: its Python puts byte code beside the models, and an engine with a file too many counts as
    damaged, so that the next build would make it anew.

    Args:
        engine: The engine's folder; it stays as it is.
        serving: Batch, delay and queue, and how long loading may take.
        installation: The server; None looks for one.
        ports: Where it listens, on localhost alone.

    Raises:
        TritonStartError: The server died or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="model-repository-") as linked:
        link_model_repository(engine / REPOSITORY_FOLDER, Path(linked), serving)
        ready_seconds = float(serving.startup_timeout_seconds)
        with LocalTriton(Path(linked), installation=installation, ports=ports, ready_seconds=ready_seconds) as server:
            yield server


def meaningful_log(log_file: Path) -> str:
    """Return the last lines of a server's log that tell of trouble, or its last lines."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    words = ("Error", "error", "UNAVAILABLE", "Traceback", "failed", "Invalid")
    telling = [line for line in lines if line.startswith("E") or any(word in line for word in words)]
    return "\n".join((telling or lines)[-_LOG_LINES:])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
