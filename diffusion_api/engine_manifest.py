"""The contract from builder to runtime: what an engine is made of and how its denoising loop runs.

The runtime knows no architecture. All that is special to a family (rotary tables, latent packing, normalisation, prompt template)
is in the graphs or in this manifest, `engine.json` of the `pipeline` model.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from diffusion_api.base import ApiModel
from diffusion_api.model_spec import Shape
from diffusion_api.recipe import NoStepCache, Precision, Recipe, StepCachePlan


class Dtype(StrEnum):
    """Element type of a tensor, in Triton's and the KServe protocol's words."""

    FP32 = "FP32"
    FP16 = "FP16"
    BF16 = "BF16"
    INT64 = "INT64"
    INT32 = "INT32"
    UINT8 = "UINT8"


class TensorSpec(ApiModel):
    """One input or output of a piece; the first axis is always the batch and is left out here."""

    name: str
    """Name in the graph."""
    dtype: Dtype
    """Element type at the piece's border."""
    dims: tuple[int | str, ...]
    """Axes after the batch: a number, or a word such as `image_tokens` for an axis that depends on the shape."""


class Executor(StrEnum):
    """What runs a piece."""

    OPENVINO = "OpenVINO"  # `model.xml` with `model.bin`.
    TENSORRT = "TensorRT"  # `model.plan`; Triton's own back end runs those of TensorRT, and a Python model those of TensorRT-RTX.
    AOT_INDUCTOR = "AOTInductor"  # `model.pt2`.
    ONNX_RUNTIME = "OnnxRuntime"  # `model.onnx`.
    TORCH = "Torch"  # The eager module itself, in the builder only.


class Piece(ApiModel):
    """One compiled graph, which is one model of the Triton repository."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name, and Triton model name, for example `transformer_body`."""
    executor: Executor
    """What runs it."""
    file: str
    """Its file below the model's version folder, for example `model.xml`."""
    inputs: tuple[TensorSpec, ...]
    """Inputs in order."""
    outputs: tuple[TensorSpec, ...]
    """Outputs in order."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the executor, for example OpenVINO's `INFERENCE_PRECISION_HINT`."""


class LatentStream(ApiModel):
    """One latent that the loop denoises: the picture, or for an audio-video model the video and the audio."""

    name: str
    """`image`, `video` or `audio`."""
    input: str
    """The denoiser's input that takes it, for example `hidden_states`."""
    output: str
    """The denoiser's output that holds its velocity, for example `sample`."""
    body_input: str
    """The body's input that is the residual's base, for example `x`."""
    body_output: str
    """The body's output; residual = body_output − body_input."""


class ShapePlan(ApiModel):
    """All that depends on the output size."""

    shape: Shape
    """The output size."""
    dims: dict[str, int]
    """Value of each named axis, for example `{"image_tokens": 4096, "latent_height": 64, "latent_width": 64}`."""
    latents: dict[str, tuple[int, ...]]
    """Axes of each stream's latent after the batch, as the denoiser takes it, for example `{"image": [4096, 128]}`."""
    sigmas: tuple[float, ...]
    """Noise levels, descending, with the final 0: one more than there are steps."""
    constants: dict[str, str] = Field(default_factory=dict)
    """Denoiser inputs that do not change: input name to tensor name in `constants.safetensors` (no batch axis)."""


class GuidanceMode(StrEnum):
    """How guidance is applied."""

    NONE = "None"
    EMBEDDED = "Embedded"  # The denoiser has a `guidance` input.
    CLASSIFIER_FREE = "ClassifierFree"  # Two evaluations: velocity = negative + scale × (positive − negative).


class Guidance(ApiModel):
    """How guidance is applied."""

    mode: GuidanceMode = GuidanceMode.NONE
    """Mode."""
    scale: float = 1.0
    """Default scale of a request."""


class TextEncoding(ApiModel):
    """How a prompt becomes the denoiser's conditions."""

    template_prefix: str = ""
    """Text before the prompt: the chat template, rendered ahead."""
    template_suffix: str = ""
    """Text after the prompt."""
    max_sequence_length: int = Field(ge=1)
    """Tokens; longer prompts are cut, shorter ones padded on the right (or left, see `padding_side`)."""
    pad_token_id: int
    """Token that fills."""
    padding_side: Literal["left", "right"] = "right"
    """Where it fills."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """The text encoder's output to the denoiser's input, for example `{"prompt_embeds": "encoder_hidden_states"}`."""


class LatentDecoder(ApiModel):
    """How a stream's latent becomes what the user gets."""

    stream: str
    """The stream."""
    piece: str
    """The piece that decodes it, for example `vae_decoder`."""
    input: str
    """Its input."""
    reshape: tuple[str | int, ...] = ()
    """Axes after the batch that the latent is reshaped to before decoding, as names of `dims`; empty: as it is."""
    output: str
    """Its output: pictures are UINT8 [B, H, W, 3], videos UINT8 [B, F, H, W, 3], audio FP32 [B, channels, samples]."""


class Modality(StrEnum):
    """What a generation yields."""

    IMAGE = "Image"
    VIDEO = "Video"


class EngineManifest(ApiModel):
    """What an engine is made of and how its denoising loop runs."""

    format_version: Literal[1] = 1
    """Version of this contract."""
    family: str
    """Family of the model, for example `flux2-klein`."""
    modality: Modality = Modality.IMAGE
    """What a generation yields."""
    engine_key: str = ""
    """The engine key; empty while the builder works on it."""
    recipe: Recipe = Recipe()
    """The recipe it was built from."""
    precision: Precision = Precision.FP32
    """Type of latents and conditions at the pieces' borders: FP32 on the CPU."""
    pieces: dict[str, Piece]
    """By name. Either `transformer`, or `transformer_prelude`, `transformer_body` and `transformer_head`."""
    streams: tuple[LatentStream, ...] = Field(min_length=1)
    """What the loop denoises."""
    shapes: tuple[ShapePlan, ...] = Field(min_length=1)
    """Output sizes, the first is the default."""
    timestep_input: str = "timestep"
    """The denoiser's input that takes the noise level, FP32 [B], in [0, 1]."""
    indicator_output: str = "indicator"
    """The prelude's output whose change predicts the residual's."""
    guidance: Guidance = Guidance()
    """How guidance is applied."""
    text: TextEncoding
    """How a prompt becomes conditions."""
    decoders: tuple[LatentDecoder, ...] = Field(min_length=1)
    """How latents become pictures, videos and audio."""
    step_cache: Annotated[StepCachePlan, Field(discriminator="policy")] = NoStepCache()
    """Which steps are left out."""
    max_batch_size: int = Field(default=8, ge=1)
    """Largest batch of a piece."""

    @property
    def has_split_transformer(self) -> bool:
        """True where the transformer is served as prelude, body and head, which a step cache needs."""
        return "transformer_body" in self.pieces

    def shape_plan(self, name: str | None) -> ShapePlan:
        """Return the plan of an output size such as `1024x1024`; None is the default size.

        Raises:
            KeyError: No such size; the message lists those there are.
        """
        if name is None:
            return self.shapes[0]
        for plan in self.shapes:
            if plan.shape.name == name:
                return plan
        raise KeyError(f"size {name} is not served; use one of {', '.join(plan.shape.name for plan in self.shapes)}")
