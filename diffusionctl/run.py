"""`diffusionctl run`: build if needed, then serve until Ctrl-C."""

from __future__ import annotations

import signal
import tempfile
import threading
from pathlib import Path

from rich.console import Console

from diffusion_api.serving import Serving
from diffusionctl.build import build_file
from diffusionctl.errors import ServerError
from diffusionctl.files import read_deployment
from engine_runtime.triton.repository import link_model_repository
from engine_runtime.triton.server import LocalTriton, TritonPorts, TritonStartError


def run_file(file: Path, store_folder: Path, *, ports: TritonPorts) -> None:
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
        _serve(engine.path / "model_repository", read_deployment(file).spec.serving, ports, stop, console)
    except TritonStartError as error:
        raise ServerError(str(error)) from None
    console.print("stopped")


def _serve(repository: Path, serving: Serving, ports: TritonPorts, stop: threading.Event, console: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="model-repository-") as linked:
        link_model_repository(repository, Path(linked), serving)
        with LocalTriton(Path(linked), ports=ports) as server:
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
