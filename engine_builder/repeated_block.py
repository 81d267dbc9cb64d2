"""`RepeatedBlock`: how a piece says which of its parts come again with other weights, so that the exporter traces one of each kind."""

from __future__ import annotations

from torch import nn


class RepeatedBlock(nn.Module):
    """A block that a piece has many of, for example a transformer block.

    `forward` takes tensors by position, and returns a tensor, or a tuple of them, with the shapes and types of the first inputs. Blocks
    share a trace where nothing differs but the numbers in their parameters and buffers: with other shapes, types or attributes, or tensors
    that are neither parameters nor buffers, each is traced by itself.
    """

    outputs = 1
    """How many tensors `forward` returns."""

    unread: frozenset[str] = frozenset()
    """Attributes of its modules that `forward` does not read, and in which blocks may differ: a layer's number, for example."""
