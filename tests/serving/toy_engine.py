"""A tiny engine of OpenVINO graphs, made here without torch: it draws noise tinted by the prompt, in 4 steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
from openvino import Model, Type
from openvino import opset13 as ops
from tokenizers import Tokenizer, models, pre_tokenizers

from diffusion_api.engine_manifest import (
    Dtype,
    EngineManifest,
    Executor,
    LatentDecoder,
    LatentStream,
    Piece,
    ShapePlan,
    TensorSpec,
    TextEncoding,
)
from diffusion_api.model_spec import Shape
from diffusion_api.recipe import FixedMaskStepCache, NoStepCache, StepCachePlan
from diffusion_api.serving import Serving
from engine_runtime.triton.repository import write_model_repository

TOKENS = 4
CHANNELS = 3
SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.0)
COLOURS = {"red": 1, "green": 2, "blue": 3}
OVERFLOW = {"overflow": 100_000}
"""A word whose latents are finite, but too large for the decoder."""

FP32, INT64, UINT8 = Dtype.FP32, Dtype.INT64, Dtype.UINT8
HIDDEN = TensorSpec(name="hidden_states", dtype=FP32, dims=("image_tokens", CHANNELS))
CONDITION = TensorSpec(name="condition", dtype=FP32, dims=(TOKENS, 1))
TIMESTEP = TensorSpec(name="timestep", dtype=FP32, dims=())
POSITIONS = TensorSpec(name="position_ids", dtype=FP32, dims=("image_tokens", 1))
SAMPLE = TensorSpec(name="sample", dtype=FP32, dims=("image_tokens", CHANNELS))
X = TensorSpec(name="x", dtype=FP32, dims=("image_tokens", CHANNELS))
Y = TensorSpec(name="y", dtype=FP32, dims=("image_tokens", CHANNELS))
TEMB = TensorSpec(name="temb", dtype=FP32, dims=())
INDICATOR = TensorSpec(name="indicator", dtype=FP32, dims=(1,))
_TYPES = {FP32: Type.f32, INT64: Type.i64, UINT8: Type.u8}


def write_toy_engine(root: Path, work: Path, serving: Serving, *, mask: Sequence[bool] | None = None) -> EngineManifest:
    """Write a model repository; a mask makes the transformer three pieces."""
    pieces = [text_encoder, *((prelude, body, head) if mask else (transformer,)), vae_decoder]
    made = [make() for make in pieces]
    compiled = {}
    for piece, model in made:
        compiled[piece.name] = work / piece.name
        compiled[piece.name].mkdir(parents=True)
        openvino.save_model(model, compiled[piece.name] / piece.file, compress_to_fp16=False)
    step_cache: StepCachePlan = FixedMaskStepCache(mask=tuple(mask)) if mask else NoStepCache()
    result = manifest({piece.name: piece for piece, _ in made}, step_cache)
    constants = {f"ids_{plan.shape.name}": np.zeros((plan.dims["image_tokens"], 1), np.float32) for plan in result.shapes}
    write_model_repository(root, manifest=result, compiled=compiled, constants=constants, tokenizer_json=tokenizer_json(), serving=serving)
    return result


def manifest(pieces: dict[str, Piece], step_cache: StepCachePlan) -> EngineManifest:
    return EngineManifest(
        family="toy",
        pieces=pieces,
        streams=(LatentStream(name="image", input="hidden_states", output="sample", body_input="x", body_output="y"),),
        shapes=tuple(shape_plan(width, height) for width, height in ((32, 16), (16, 16))),
        text=TextEncoding(max_sequence_length=TOKENS, pad_token_id=0, outputs={"embeds": "condition"}),
        decoders=(LatentDecoder(stream="image", piece="vae_decoder", input="latents", reshape=("h", "w", CHANNELS), output="image"),),
        step_cache=step_cache,
    )


def shape_plan(width: int, height: int) -> ShapePlan:
    shape = Shape(width=width, height=height)
    return ShapePlan(
        shape=shape,
        dims={"image_tokens": width * height, "h": height, "w": width},
        latents={"image": (width * height, CHANNELS)},
        sigmas=SIGMAS,
        constants={"position_ids": f"ids_{shape.name}"},
    )


def tokenizer_json() -> str:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "?": 9, **COLOURS, **OVERFLOW}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str()


def text_encoder():
    ids = TensorSpec(name="input_ids", dtype=INT64, dims=(TOKENS,))
    mask = TensorSpec(name="attention_mask", dtype=INT64, dims=(TOKENS,))
    embeds = TensorSpec(name="embeds", dtype=FP32, dims=(TOKENS, 1))

    def graph(ids, mask):
        return [ops.unsqueeze(ops.convert(ops.multiply(ids, mask), Type.f32), 2)]

    return _piece("text_encoder", (ids, mask), (embeds,), graph)


def transformer():
    def graph(hidden, condition, timestep, positions):
        x, temb, _ = _prelude(hidden, timestep)
        return [_head(_body(x, condition, positions), temb)]

    return _piece("transformer", (HIDDEN, CONDITION, TIMESTEP, POSITIONS), (SAMPLE,), graph)


def prelude():
    return _piece("transformer_prelude", (HIDDEN, TIMESTEP), (X, TEMB, INDICATOR), _prelude)


def body():
    return _piece("transformer_body", (X, CONDITION, POSITIONS), (Y,), lambda *inputs: [_body(*inputs)])


def head():
    return _piece("transformer_head", (Y, TEMB), (SAMPLE,), lambda *inputs: [_head(*inputs)])


def vae_decoder():
    latents = TensorSpec(name="latents", dtype=FP32, dims=("h", "w", CHANNELS))
    image = TensorSpec(name="image", dtype=UINT8, dims=("h", "w", CHANNELS))

    def graph(latents):
        scaled = ops.add(ops.multiply(latents, _number(40)), _number(128))
        large = ops.multiply(latents, _number(1e35))
        nan_or_zero = ops.subtract(large, ops.reduce_mean(large, [1, 2, 3], True))  # As a normalization does: infinite less infinite.
        centred = ops.multiply(nan_or_zero, _number(0))
        return [ops.convert(ops.clamp(ops.round(ops.add(scaled, centred), "half_to_even"), 0, 255), Type.u8)]

    return _piece("vae_decoder", (latents,), (image,), graph)


def _prelude(hidden, timestep):
    # Not the parameter itself: OpenVINO gives an output and an input that share a tensor one name.
    temb = ops.multiply(timestep, _number(1))
    return [ops.multiply(hidden, _number(1)), temb, ops.unsqueeze(temb, 1)]


def _body(x, condition, positions):
    tint = ops.add(ops.reduce_mean(condition, [1], True), ops.reduce_mean(positions, [1], True))
    return ops.subtract(ops.multiply(x, _number(0.5)), tint)


def _head(y, temb):
    return ops.add(y, ops.unsqueeze(ops.unsqueeze(temb, 1), 2))


def _number(value: float):
    return ops.constant(np.float32(value))


def _piece(name, inputs, outputs, graph):
    parameters = [_parameter(spec) for spec in inputs]
    nodes = graph(*parameters)
    results = []
    for spec, node in zip(outputs, nodes, strict=True):
        result = ops.result(node)
        result.get_output_tensor(0).set_names({spec.name})
        results.append(result)
    piece = Piece(name=name, executor=Executor.OPENVINO, file="model.xml", inputs=inputs, outputs=outputs)
    return piece, Model(results, parameters, name)


def _parameter(spec: TensorSpec):
    parameter = ops.parameter([-1, *(dim if isinstance(dim, int) else -1 for dim in spec.dims)], _TYPES[spec.dtype], name=spec.name)
    parameter.get_output_tensor(0).set_names({spec.name})
    return parameter
