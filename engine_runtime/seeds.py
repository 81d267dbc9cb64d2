"""Which seeds there are; imports nothing, so that the command line can ask before numpy is loaded."""

from __future__ import annotations

import secrets

MAX_SEED = 2**63 - 1
"""Largest seed; it fits the INT64 of every client."""


def random_seed() -> int:
    """Draw a seed for a request that names none; 53 bits, so that it survives a JSON number."""
    return secrets.randbits(53)
