"""What to serve: the checkpoint, an optional distilled student laid over it, and how it is sampled."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from diffusion_api.base import DNS_SUBDOMAIN_PATTERN, ApiModel, CelRule, cel_rules

URI_PATTERN = r"^(file://.+|hf://[^/]+/[^/]+.*|oci://[^/]+/.+|(https?|pvc|s3)://[^/].*)$"
URI_EXAMPLES = ("file:///path", "hf://owner/name", "https://host/path", "oci://host/name:tag", "pvc://claim/path", "s3://bucket/path")
Uri = Annotated[str, StringConstraints(pattern=URI_PATTERN, max_length=2048)]
SIZE_MULTIPLE = 16  # FLUX.2: the VAE's factor 8 times patches of 2. No supported family takes a finer step.


SIGMAS_SENTENCE = "sigmas must descend strictly, for example [1.0, 0.75, 0.5, 0.25]"
FRAMES_SENTENCE = "framesPerSecond belongs to a video; set frames as well, or leave it out"


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

    model_config = ConfigDict(
        json_schema_extra=cel_rules(
            CelRule(
                "!has(self.sigmas) || (self.sigmas.map(s, -s).isSorted() && self.sigmas.all(s, self.sigmas.exists_one(t, t == s)))",
                SIGMAS_SENTENCE,
            ),
            CelRule(
                "!has(self.sigmas) || !has(self.steps) || self.steps == size(self.sigmas)",
                "steps is %d but sigmas has %d levels; leave steps out or make them agree",
                ("self.steps", "size(self.sigmas)"),
            ),
        )
    )

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
            raise ValueError(SIGMAS_SENTENCE)
        if self.steps is not None and self.steps != len(self.sigmas):
            raise ValueError(f"steps is {self.steps} but sigmas has {len(self.sigmas)} levels; leave steps out or make them agree")
        return self


class ModelSource(ApiModel):
    """The checkpoint to optimize and serve."""

    uri: Uri
    """A diffusers folder: `hf://owner/name`, `s3://`, `https://`, `oci://`, `pvc://claim/path` or `file://`."""
    revision: str | None = Field(default=None, min_length=1, max_length=256)
    """A commit or digest. A moving name (branch, tag) is resolved at build time and the result recorded in status."""
    secret_name: str | None = Field(default=None, pattern=DNS_SUBDOMAIN_PATTERN, max_length=253)
    """Secret in the same namespace with the credentials for `uri`, for example key `token` for `hf://`."""
    student: Student | None = None
    """Distilled weights laid over the checkpoint's transformer."""
    sampling: Sampling = Sampling()
    """How pictures are drawn."""


MULTIPLE_RULE = cel_rules(
    CelRule(
        f"self % {SIZE_MULTIPLE} == 0",
        f"%d is not a multiple of {SIZE_MULTIPLE}; use %d or %d",
        ("self", f"self / {SIZE_MULTIPLE} * {SIZE_MULTIPLE}", f"self / {SIZE_MULTIPLE} * {SIZE_MULTIPLE} + {SIZE_MULTIPLE}"),
    )
)


class Shape(ApiModel):
    """One output size that the engine must serve."""

    model_config = ConfigDict(json_schema_extra=cel_rules(CelRule("has(self.frames) || !has(self.framesPerSecond)", FRAMES_SENTENCE)))

    width: int = Field(ge=16, le=8192, json_schema_extra=MULTIPLE_RULE)
    """Width in pixels; a multiple of 16."""
    height: int = Field(ge=16, le=8192, json_schema_extra=MULTIPLE_RULE)
    """Height in pixels; a multiple of 16."""
    frames: int | None = Field(default=None, ge=1, le=1025)
    """Video only: number of frames."""
    frames_per_second: int | None = Field(default=None, ge=1, le=120)
    """Video only: frames per second."""

    @field_validator("width", "height")
    @classmethod
    def _check_multiple(cls, value: int) -> int:
        if value % SIZE_MULTIPLE:
            low = value // SIZE_MULTIPLE * SIZE_MULTIPLE
            raise ValueError(f"{value} is not a multiple of {SIZE_MULTIPLE}; use {low} or {low + SIZE_MULTIPLE}")
        return value

    @model_validator(mode="after")
    def _check_video(self) -> Self:
        if self.frames_per_second is not None and self.frames is None:
            raise ValueError(FRAMES_SENTENCE)
        return self

    @property
    def name(self) -> str:
        """`1024x1024` for a picture, `1280x768x121` for a video."""
        return f"{self.width}x{self.height}" + (f"x{self.frames}" if self.frames else "")


SAME_SIZE_SENTENCE = "the same size is listed twice; leave one out"
MIXED_SENTENCE = "pictures and videos are mixed; an engine serves one or the other, so make two deployments"


def _check_shapes(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    if len({shape.name for shape in shapes}) < len(shapes):
        raise ValueError(SAME_SIZE_SENTENCE)
    if len({shape.frames is None for shape in shapes}) > 1:
        raise ValueError(MIXED_SENTENCE)
    return shapes


Shapes = Annotated[
    tuple[Shape, ...],
    Field(
        min_length=1,
        max_length=16,
        json_schema_extra=cel_rules(
            CelRule(
                "self.all(a, self.exists_one(b, a.width == b.width && a.height == b.height"
                " && (has(a.frames) ? a.frames : 0) == (has(b.frames) ? b.frames : 0)))",
                SAME_SIZE_SENTENCE,
            ),
            CelRule("self.all(a, has(a.frames)) || !self.exists(a, has(a.frames))", MIXED_SENTENCE),
        ),
    ),
    AfterValidator(_check_shapes),
]
