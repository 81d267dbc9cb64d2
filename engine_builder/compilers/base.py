"""What the builder asks of a compiler: an exported graph in, a file that an executor loads out.

A compiler knows nothing of models: axes, types and names come from `TensorSpec`s, sizes from a `ShapeProfile`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from diffusion_api.accelerator import Accelerator, runs_natively
from diffusion_api.engine_manifest import Piece, TensorSpec
from diffusion_api.optimization import QuantizationFormat
from diffusion_api.recipe import Precision
from engine_builder.errors import UnsupportedTargetError


@dataclass(frozen=True)
class AxisRange:
    """Sizes that an axis may take; kernels are tuned for `optimum`."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"axis range {self.minimum}, {self.optimum}, {self.maximum} must be at least 1 and ascend")

    @property
    def is_fixed(self) -> bool:
        """True where the axis has one size."""
        return self.minimum == self.maximum


@dataclass(frozen=True)
class ShapeProfile:
    """Sizes of the batch axis and of every named axis."""

    batch: AxisRange
    axes: Mapping[str, AxisRange] = field(default_factory=dict)

    def ranges(self, spec: TensorSpec) -> tuple[AxisRange, ...]:
        """Return the range of each axis of a tensor, the batch first.

        Raises:
            KeyError: the tensor names an axis that this profile does not have; the caller's bug.
        """
        named = (AxisRange(dim, dim, dim) if isinstance(dim, int) else self.axes[dim] for dim in spec.dims)
        return (self.batch, *named)


def profile_of(sizes: Iterable[Mapping[str, int]], max_batch_size: int) -> ShapeProfile:
    """Return the profile that covers output sizes: batch 1 to the largest, tuned for 1 and for the first size.

    Args:
        sizes: The value of each named axis, one mapping per output size, the default first; all have the same names.
        max_batch_size: Largest batch.
    """
    first, *others = sizes
    axes = {name: [first[name], *(size[name] for size in others)] for name in first}
    return ShapeProfile(
        batch=AxisRange(1, 1, max_batch_size),
        axes={name: AxisRange(min(values), values[0], max(values)) for name, values in axes.items()},
    )


@dataclass(frozen=True)
class CompileRequest:
    """One exported graph, and for which sizes to compile it."""

    name: str
    """Piece name, for example `transformer`."""
    onnx: Path
    """The exported graph; its weights may lie in files beside it."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: ShapeProfile
    precision: Precision
    """Type of what is not quantized. TensorRT takes it from the graph's own types."""


@dataclass(frozen=True)
class CompiledPiece:
    """A compiled graph on disk."""

    piece: Piece
    """How to load it."""
    folder: Path
    """Where `piece.file` lies."""
    size_bytes: int
    """Size of the file that holds its weights: TensorRT's plan, kernels included, or what OpenVINO keeps beside the graph's text."""
    seconds: float
    """Wall-clock time of parsing and compiling."""
    layers: int
    """Layers of the network before the compiler fused them."""
    warnings: tuple[str, ...] = ()
    """What the compiler warned of, each text once."""

    @property
    def file(self) -> Path:
        """The file that the executor opens."""
        return self.folder / self.piece.file


class Compiler(Protocol):
    """Turns exported graphs into files that an executor loads."""

    name: str
    """For example `TensorRT`."""

    def version(self) -> str:
        """Return the full version, without the name; both are part of the engine key.

        Raises:
            UnsupportedTargetError: it is not installed; the message says how to.
        """

    def settings(self) -> Mapping[str, str]:
        """Return every setting that changes what it writes; part of the engine key."""

    def check(self, accelerator: Accelerator, formats: Collection[QuantizationFormat]) -> None:
        """Tell before any work whether it can compile graphs of these formats for the accelerator.

        Raises:
            UnsupportedTargetError: it cannot; the message says what to change in the job or on the machine.
        """

    def compile(self, request: CompileRequest, output_dir: Path, timing_cache: Path | None = None) -> CompiledPiece:
        """Compile a graph into `output_dir`, which exists.

        Args:
            request: The graph.
            output_dir: Gets the files of this piece.
            timing_cache: Folder that keeps kernel timings between builds, for compilers that have such a cache.

        Raises:
            CompileError: the compiler refused the graph; the message names the node.
        """


def require_formats(accelerator: Accelerator, formats: Collection[QuantizationFormat]) -> None:
    """Refuse formats that a GPU has no kernels for.

    Raises:
        UnsupportedTargetError: names the formats, and those that the GPU runs.
    """
    missing = sorted(wanted for wanted in formats if not runs_natively(wanted, accelerator))
    if not missing:
        return
    usable = [known.value for known in QuantizationFormat if runs_natively(known, accelerator)]
    raise UnsupportedTargetError(
        f"{accelerator.product} (compute capability {accelerator.resolved_compute_capability}) has no kernels for "
        f"{', '.join(missing)}; set spec.optimization.quantization.format to one of {', '.join(usable)}, or choose another accelerator"
    )


def shape_text(shape: Iterable[int]) -> str:
    """Write a shape as `1x64x128`."""
    return "x".join(map(str, shape))
