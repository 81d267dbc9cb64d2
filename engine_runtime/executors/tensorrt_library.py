"""Loads TensorRT or TensorRT-RTX, and owns the one logger that either allows in a process.

A second `ILogger` is ignored by both (seen with TensorRT-RTX 1.7): its messages go to the first. So there is one per library, and
builds take turns collecting what it hears. Compiler and executor share this module for that reason.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""The extra of `diffusion-operator` that installs each module."""


@dataclass
class Messages:
    """What the library said during one build."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Library:
    """A loaded TensorRT or TensorRT-RTX."""

    module: ModuleType
    logger: Any
    """Its `ILogger`."""
    turn: threading.Lock
    """Held by the build that collects messages."""

    @contextlib.contextmanager
    def messages(self) -> Iterator[Messages]:
        """Collect what the logger hears until the end of the block; other threads wait."""
        with self.turn:
            self.logger.messages = found = Messages()
            try:
                yield found
            finally:
                self.logger.messages = None


@functools.cache
def load_library(module: str) -> Library:
    """Import `tensorrt` or `tensorrt_rtx` once.

    Raises:
        ModuleNotFoundError: it is not installed, or its shared libraries are missing; the message says what to install.
    """
    try:
        loaded = importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: the bindings are there, the shared libraries are not.
        raise ModuleNotFoundError(f"{error}: install it with `pip install diffusion-operator[{EXTRAS[module]}]`", name=module) from error
    return Library(loaded, _logger(loaded), threading.Lock())


def _logger(module: ModuleType) -> Any:
    severity = module.ILogger

    class Logger(module.ILogger):  # type: ignore[name-defined, misc]  # The base class is known only at run time.
        """Hands warnings and errors to the build whose turn it is."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 demands the explicit call.
            self.messages: Messages | None = None

        def log(self, level: Any, text: str) -> None:
            if self.messages is None or level > severity.WARNING:
                return
            known = self.messages.warnings if level == severity.WARNING else self.messages.errors
            if text not in known:
                known.append(text)

    return Logger()
