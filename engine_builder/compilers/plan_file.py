"""Writes a plan as TensorRT hands it out, piece by piece: it has the size of the weights, and need not be in memory as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any


def build_plan(trt: Any, builder: Any, network: Any, config: Any, file: Path) -> bool:
    """Compile a network into `file`, which appears when it is complete.

    Returns: False where TensorRT refuses the network; its logger heard why.

    Raises:
        OSError: The file cannot be written.
    """
    partial = file.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            writer = _writer(trt, stream)
            done = bool(builder.build_serialized_network_to_stream(network, config, writer))
        if writer.problem is not None:
            raise writer.problem
        if done:
            partial.replace(file)
        return done
    finally:
        partial.unlink(missing_ok=True)


def _writer(trt: Any, stream: IO[bytes]) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]  # The base class is known only at run time.
        """Keeps an error of the file system for Python: raised through TensorRT, it would end the process."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)  # pybind11 demands the explicit call.
            self.problem: OSError | None = None

        def write(self, data: bytes) -> int:
            """Return the number of bytes written; fewer than there are ends the build."""
            if self.problem is None:
                try:
                    return stream.write(data)
                except OSError as problem:
                    self.problem = problem
            return 0

    return Writer()
