"""`RepeatedBlock`: how a piece says which of its parts come again with other weights, so that the exporter traces one of each kind."""

from __future__ import annotations

from torch import nn


class RepeatedBlock(nn.Module):
    """A block that a piece has many of, for example a transformer block.

    `forward` takes tensors by position, each used at least once, and returns a tensor, or a tuple of them, with the shapes and types of
    the first inputs. All that differs between two blocks of a piece is in parameters, buffers and plain attributes of their modules:
    blocks that differ in shapes, types or attributes are traced apart.
    """

    outputs = 1
    """How many tensors `forward` returns."""
