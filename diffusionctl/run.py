"""`diffusionctl run`: build if needed, then serve until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from diffusionctl.build import build_file
from diffusionctl.errors import ServerError
from engine_runtime.triton.server import LocalTriton, ServerFailedError


@dataclass(frozen=True)
class Ports:
    """Where Triton listens."""

    http: int
    grpc: int
    metrics: int


def run_file(file: Path, store_folder: Path, *, host: str, ports: Ports) -> None:
    """Build a file's engine if the store lacks it, serve it, and stop cleanly on Ctrl-C or SIGTERM.

    Raises:
        ServerError: Triton did not become ready, or ended by itself; its last log lines are in the message.
    """
    engine = build_file(file, store_folder, simulate=False, as_json=False)
    console = Console(highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with LocalTriton(
            engine.path / "model_repository", host=host, http_port=ports.http, grpc_port=ports.grpc, metrics_port=ports.metrics
        ) as server:
            console.print(_how_to_ask(host, ports), soft_wrap=True)
            while not stop.wait(0.5):
                server.check_alive()
    except ServerFailedError as error:
        raise ServerError(str(error)) from None
    console.print("stopped")


def _how_to_ask(host: str, ports: Ports) -> str:
    return f"""serving
  HTTP     http://{host}:{ports.http}/v2
  gRPC     {host}:{ports.grpc}
  metrics  http://{host}:{ports.metrics}/metrics
ask for a picture
  diffusionctl generate "a red digit seven" --out seven.png --url {host}:{ports.grpc}
stop with Ctrl-C"""
