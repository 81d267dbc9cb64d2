"""`diffusionctl run`: build if needed, then serve until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from rich.console import Console

from diffusionctl.build import build_file
from diffusionctl.errors import ServerError
from diffusionctl.files import read_deployment
from engine_runtime.triton.installation import TritonNotFoundError, find_triton
from engine_runtime.triton.server import LocalTriton, TritonPorts, TritonStartError, served_engine


def run_file(file: Path, store_folder: Path, *, ports: TritonPorts) -> None:
    """Build a file's engine if the store lacks it, serve it, and stop cleanly on Ctrl-C or SIGTERM.

    Raises:
        ServerError: There is no Triton, which is found out before the build; or it did not become ready, or ended by itself: its last
            log lines are in the message.
    """
    serving = read_deployment(file).spec.serving
    try:
        installation = find_triton()  # Before a build that may take an hour.
    except TritonNotFoundError as error:
        raise ServerError(str(error)) from None
    engine = build_file(file, store_folder, simulate=False, as_json=False)
    console = Console(highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with served_engine(engine.path, serving, installation=installation, ports=ports) as server:
            _wait(server, stop, console)
    except TritonStartError as error:
        raise ServerError(str(error)) from None
    console.print("stopped")


def _wait(server: LocalTriton, stop: threading.Event, console: Console) -> None:
    console.print(_how_to_ask(server), soft_wrap=True)
    while not stop.wait(0.5):
        server.require_running()


def _how_to_ask(server: LocalTriton) -> str:
    return f"""serving
  HTTP     {server.http_url}/v2
  gRPC     {server.grpc_url}
  metrics  {server.metrics_url}
ask for a picture
  diffusionctl generate "a red digit seven" --out seven.png --url {server.grpc_url}
stop with Ctrl-C"""
