"""What quantizing a component did, for the report and for whoever asks why a layer stayed as it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizationSummary:
    """What was quantized, what was not and why."""

    quantized: tuple[str, ...] = ()
    """Names of the quantized layers."""
    sensitive: tuple[str, ...] = ()
    """Layers that the caller excluded."""
    indivisible: tuple[str, ...] = ()
    """Layers whose input width is no multiple of the format's block."""
    unreached: tuple[str, ...] = ()
    """Layers that no calibration input passed, so that their scale is unknown."""
    weight_bits: float = 0.0
    """Bits per quantized weight with its block scales; 0 where nothing is quantized."""
    weight_bytes: int = 0
    """Bytes of all the component's weights, in the formats that they are exported in."""

    @property
    def excluded(self) -> tuple[str, ...]:
        """Every matrix or convolution that keeps high precision."""
        return tuple(sorted({*self.sensitive, *self.indivisible, *self.unreached}))
