"""Exit codes of the init container that checks and links an engine. The operator knows it by these, and never imports it."""

from __future__ import annotations

from enum import IntEnum


class PrepareExit(IntEnum):
    """Exit codes of `engine_runtime.triton.prepare`. Source: sysexits.h."""

    USAGE = 2  # argparse: the operator called it wrongly, or the image is of another release.
    FILES_MISSING = 66  # EX_NOINPUT: the engine is not in the store, or not whole.
    MISMATCH = 69  # EX_UNAVAILABLE: this image's TensorRT or this node's GPU is not what the engine was compiled for.
