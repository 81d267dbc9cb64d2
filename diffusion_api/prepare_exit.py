"""Exit codes of the container that prepares an engine for Triton: what the image says and the operator reads.

The container's termination message is one sentence for people.
"""

from __future__ import annotations

from enum import IntEnum


class PrepareExit(IntEnum):
    """Exit codes. Source: sysexits.h."""

    USAGE = 64  # The operator called it wrongly, or is of another release than the image.
    FILES_MISSING = 66  # The engine's files are gone or damaged: it must be built again.
    TRANSIENT = 75  # The store cannot be read at the moment: the kubelet tries again.
    MISMATCH = 78  # The engine is whole, but was made for another runtime or another GPU than these.
