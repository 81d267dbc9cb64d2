"""How the denoising loop calls a compiled graph, whatever runs it: torch in the builder, OpenVINO, or Triton's BLS when serving.

Arrays are numpy arrays, or torch tensors on a GPU; the loop uses only what both have (`+ - *`, `abs`, `.mean()`, `.reshape()`,
indexing by a list of rows) and `engine_runtime.arrays` for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Array = Any
"""A numpy array or a torch tensor."""


class PieceRunner(Protocol):
    """A compiled graph."""

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run it on named inputs, each with a leading batch axis, and return its named outputs.

        Args:
            inputs: Every input of the graph. Where the manifest does not list the piece, there may be more than the graph takes:
                pick by name. FP32 or INT64, numpy or torch, in any mixture.

        Returns:
            Outputs by name. They belong to the caller: a later call must not write into them.
        """
