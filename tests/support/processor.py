"""What this machine's CPU computes."""

from __future__ import annotations

from pathlib import Path

VNNI = {"avx512_vnni", "avx_vnni", "avx_vnni_int8"}


def has_vnni() -> bool:
    """Whether INT8 products are added up exactly.

    Without VNNI oneDNN, and so OpenVINO, adds two products of 8 bits in 16 bits, where large ones saturate.
    Source: oneDNN, "Nuances of int8 Computations".
    """
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool(VNNI & set(info.read_text().split()))
