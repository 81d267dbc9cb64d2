"""What to serve: the checkpoint, an optional distilled student laid over it, and how it is sampled."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from diffusion_api.base import ApiModel

URI_SCHEMES = ("file", "hf", "https", "http", "oci", "pvc", "s3")
Uri = Annotated[str, StringConstraints(pattern=rf"^({'|'.join(URI_SCHEMES)})://.+$", max_length=2048)]


class StudentFormat(StrEnum):
    """How the distilled weights are stored."""

    FASTGEN = "FastGen"  # A `.pth` file or a DCP folder, as NVlabs/FastGen writes them.
    DIFFUSERS = "Diffusers"  # Safetensors of a diffusers transformer.


class Student(ApiModel):
    """Distilled weights that replace the transformer's own."""

    uri: Uri
    """Where the weights lie, for example `s3://models/klein-dmd2/0005000.pth`."""
    format: StudentFormat = StudentFormat.FASTGEN
    """How they are stored. FastGen checkpoints prefer their exponential moving average."""


class Sampling(ApiModel):
    """How pictures are drawn. What is unset comes from the checkpoint."""

    steps: int | None = Field(default=None, ge=1, le=200)
    """Number of denoising steps. Unset: as many as `sigmas` has, else the family's default for the checkpoint."""
    sigmas: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(default=None, min_length=1, max_length=200)
    """Explicit noise levels, descending, without the final 0. Used as they are, without a shift."""
    guidance_scale: float | None = Field(default=None, ge=0, le=50)
    """Guidance: embedded where the transformer takes it, else classifier-free above 1."""
    max_sequence_length: int = Field(default=512, ge=1, le=4096)
    """Prompt length in tokens; longer prompts are cut, shorter ones padded."""

    @model_validator(mode="after")
    def _check_sigmas(self) -> Self:
        if self.sigmas is None:
            return self
        if any(a <= b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError("sigmas must descend strictly, for example [1.0, 0.75, 0.5, 0.25]")
        if self.steps is not None and self.steps != len(self.sigmas):
            raise ValueError(f"steps is {self.steps} but sigmas has {len(self.sigmas)} levels; leave steps out or make them agree")
        return self


class ModelSource(ApiModel):
    """The checkpoint to optimize and serve."""

    uri: Uri
    """A diffusers folder: `hf://owner/name`, `s3://`, `https://`, `oci://`, `pvc://claim/path` or `file://`."""
    revision: str | None = Field(default=None, min_length=1, max_length=256)
    """A commit or digest. A moving name (branch, tag) is resolved at build time and the result recorded in status."""
    secret_name: str | None = Field(default=None, min_length=1, max_length=253)
    """Secret in the same namespace with the credentials for `uri`, for example key `token` for `hf://`."""
    student: Student | None = None
    """Distilled weights laid over the checkpoint's transformer."""
    sampling: Sampling = Sampling()
    """How pictures are drawn."""


class Shape(ApiModel):
    """One output size that the engine must serve."""

    width: int = Field(ge=16, le=8192)
    """Width in pixels; a multiple of 16."""
    height: int = Field(ge=16, le=8192)
    """Height in pixels; a multiple of 16."""
    frames: int | None = Field(default=None, ge=1, le=1025)
    """Video only: number of frames."""
    frames_per_second: int | None = Field(default=None, ge=1, le=120)
    """Video only: frames per second."""

    @model_validator(mode="after")
    def _check_multiples(self) -> Self:
        for name, value in (("width", self.width), ("height", self.height)):
            if value % 16:
                low = value // 16 * 16
                raise ValueError(f"{name}: {value} is not a multiple of 16; use {low} or {low + 16}")
        if self.frames_per_second is not None and self.frames is None:
            raise ValueError("framesPerSecond needs frames")
        return self

    @property
    def name(self) -> str:
        """`1024x1024` for a picture, `1280x768x121` for a video."""
        return f"{self.width}x{self.height}" + (f"x{self.frames}" if self.frames else "")
