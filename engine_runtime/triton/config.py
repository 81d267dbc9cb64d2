"""The model configurations of an engine's repository, as values; Source: Triton's `model_config.proto`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_api.engine_manifest import EngineManifest, Executor, Piece, TensorSpec
from diffusion_api.serving import Serving
from engine_runtime.denoiser import BODY, TRANSFORMER
from engine_runtime.triton.text_proto import EnumWord, Message, text_proto

PIPELINE = "pipeline"
"""Name of the model that users call."""

PENDING_METRIC = "diffusion_pending_requests"
"""Gauge of requests that wait or run, on Triton's /metrics."""

PARAMETER_PENDING = "max_pending_requests"
PARAMETER_CONCURRENT = "concurrent_requests"
PARAMETER_PROMPTS = "prompt_cache_size"
PROMPT_CACHE_SIZE = 32
"""Prompts whose embeddings are kept: 16 MB each at 512 tokens × 7680 in FP32."""


@dataclass(frozen=True)
class PipelineField:
    """One input or output of the `pipeline` model."""

    name: str
    data_type: str
    optional: bool = False


PIPELINE_INPUTS = (
    PipelineField("prompt", "TYPE_STRING"),
    PipelineField("seed", "TYPE_INT64", optional=True),
    PipelineField("size", "TYPE_STRING", optional=True),
    PipelineField("guidance_scale", "TYPE_FP32", optional=True),
    PipelineField("output_format", "TYPE_STRING", optional=True),
    PipelineField("preview_every", "TYPE_INT32", optional=True),
    PipelineField("base64", "TYPE_BOOL", optional=True),
)
PIPELINE_OUTPUTS = (
    PipelineField("image", "TYPE_STRING"),
    PipelineField("content_type", "TYPE_STRING"),
    PipelineField("metadata", "TYPE_STRING"),
)


def has_triton_backend(piece: Piece) -> bool:
    """Tell whether Triton itself runs a piece: its TensorRT back end links libnvinfer, and so loads no plan of TensorRT-RTX."""
    return piece.executor is Executor.TENSORRT and piece.options.get("library", "tensorrt") == "tensorrt"


def piece_config(piece: Piece, manifest: EngineManifest, serving: Serving) -> str:
    """Return a piece's `config.pbtxt`: dynamic batching, so that requests share each denoising step."""
    in_triton, on_gpu = has_triton_backend(piece), piece.executor is Executor.TENSORRT
    # Only the blocks wait for company: they are what is worth sharing, and every wait is paid at each step. No preferred sizes:
    # without them Triton sends the largest batch there is when the delay ends, and a full one at once.
    delay = serving.max_queue_delay_microseconds if piece.name in (TRANSFORMER, BODY) else 0
    config: dict[str, Message | str | int | list[Message]] = {
        "name": piece.name,
        "backend": "tensorrt" if in_triton else "python",
        "max_batch_size": min(serving.max_batch_size, manifest.max_batch_size),
        "input": [_tensor(spec) for spec in piece.inputs],
        "output": [_tensor(spec) for spec in piece.outputs],
        "dynamic_batching": {"max_queue_delay_microseconds": delay},
        "instance_group": [_instance(on_gpu=on_gpu)],
    }
    if in_triton:
        config["default_model_filename"] = piece.file
    elif on_gpu:
        # Else the Python back end copies inputs to the host before a model sees them. Source: its README, "Input Tensor Device Placement".
        config["parameters"] = [{"key": "FORCE_CPU_ONLY_INPUT_TENSORS", "value": {"string_value": "no"}}]
    return text_proto(config)


def pipeline_config(manifest: EngineManifest, serving: Serving) -> str:
    """Return the `config.pbtxt` of the pipeline: decoupled, for previews come before the result, and not batched itself."""
    batch = min(serving.max_batch_size, manifest.max_batch_size)
    parameters = {
        PARAMETER_PENDING: serving.max_pending_requests,
        # One more than share a step: while one request is encoded or decoded, the denoiser's batch stays full.
        PARAMETER_CONCURRENT: batch + 1,
        PARAMETER_PROMPTS: PROMPT_CACHE_SIZE,
    }
    return text_proto(
        {
            "name": PIPELINE,
            "backend": "python",
            "max_batch_size": 0,
            "input": [_pipeline_tensor(field) for field in PIPELINE_INPUTS],
            "output": [_pipeline_tensor(field) for field in PIPELINE_OUTPUTS],
            "instance_group": [_instance(on_gpu=any(piece.executor is Executor.TENSORRT for piece in manifest.pieces.values()))],
            "model_transaction_policy": {"decoupled": True},
            "parameters": [{"key": key, "value": {"string_value": str(value)}} for key, value in parameters.items()],
        }
    )


def _instance(*, on_gpu: bool) -> Message:
    # One instance: a second would split the batch that requests could share.
    return {"count": 1, "kind": EnumWord("KIND_GPU" if on_gpu else "KIND_CPU")}


def _tensor(spec: TensorSpec) -> Message:
    tensor: dict[str, str | list[int] | Message] = {
        "name": spec.name,
        "data_type": EnumWord(f"TYPE_{spec.dtype.value}"),
        "dims": [dim if isinstance(dim, int) else -1 for dim in spec.dims] or [1],
    }
    if not spec.dims:
        tensor["reshape"] = {}  # Triton knows no tensor of a batch axis alone: [B, 1] outside, [B] inside.
    return tensor


def _pipeline_tensor(field: PipelineField) -> Message:
    tensor: dict[str, str | bool | list[int]] = {"name": field.name, "data_type": EnumWord(field.data_type), "dims": [1]}
    if field.optional:
        tensor["optional"] = True
    return tensor
