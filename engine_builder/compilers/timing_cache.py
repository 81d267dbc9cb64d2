"""Keeps TensorRT's kernel timings between builds: one file per TensorRT version and GPU, for timings fit no other."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from diffusion_api.accelerator import Accelerator


def timing_cache_file(folder: Path, version: str, accelerator: Accelerator) -> Path:
    """Return for example `folder/tensorrt-11.1.0.106-NVIDIA-B200-1g.23gb.timing`."""
    parts = ("tensorrt", version, accelerator.product, *((accelerator.mig_profile,) if accelerator.mig_profile else ()))
    return folder / (re.sub(r"[^A-Za-z0-9.-]", "_", "-".join(parts)) + ".timing")


def attach_timing_cache(config: Any, file: Path) -> None:
    """Give the builder configuration the timings of earlier builds; none, where there is no file or TensorRT refuses it."""
    known = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)


def save_timing_cache(config: Any, file: Path) -> None:
    """Write the timings of this build and of those it began with; the last of several concurrent builders wins."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        stream.write(cache.serialize())
    partial.replace(file)
