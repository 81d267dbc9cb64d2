"""A denoiser small enough to follow by hand: velocity = 2·x + mean of the condition + timestep, in one piece or in three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffusion_api.engine_manifest import EngineManifest, Guidance, LatentDecoder, LatentStream, ShapePlan, TextEncoding
from diffusion_api.model_spec import Shape
from engine_runtime.pieces import Array
from engine_runtime.tokenizer import TokenBatch

TOKENS = 4
SHAPES = {"16x16": (3, 2), "32x16": (6, 2)}


def manifest(sigmas: Sequence[float] = (1.0, 0.5, 0.0), **changes: object) -> EngineManifest:
    plans = tuple(
        ShapePlan(
            shape=Shape(width=int(name.split("x")[0]), height=int(name.split("x")[1])),
            dims={"latent_tokens": axes[0]},
            latents={"image": axes},
            sigmas=tuple(sigmas),
            constants={"position_ids": f"ids_{name}"},
        )
        for name, axes in SHAPES.items()
    )
    stream = LatentStream(name="image", input="hidden_states", output="sample", body_input="x", body_output="y")
    base = EngineManifest(
        family="toy",
        pieces={},
        streams=(stream,),
        shapes=plans,
        guidance=Guidance(),
        text=TextEncoding(max_sequence_length=TOKENS, pad_token_id=0, outputs={"prompt_embeds": "condition"}),
        decoders=(LatentDecoder(stream="image", piece="vae_decoder", input="latents", reshape=(1, "latent_tokens", 2), output="image"),),
        max_batch_size=8,
    )
    return base.model_copy(update=changes)


def constants() -> dict[str, Array]:
    return {f"ids_{name}": np.zeros((axes[0], 1), np.float32) for name, axes in SHAPES.items()}


class LetterTokenizer:
    """One token a letter: its place in the alphabet."""

    def __call__(self, prompts: Sequence[str]) -> TokenBatch:
        ids = np.zeros((len(prompts), TOKENS), np.int64)
        for row, prompt in enumerate(prompts):
            letters = [ord(letter) - ord("a") + 1 for letter in prompt[:TOKENS]]
            ids[row, : len(letters)] = letters
        return TokenBatch(ids, (ids > 0).astype(np.int64), tuple(len(prompt) > TOKENS for prompt in prompts))


class Recorder:
    """Runs a function as a piece and keeps the batch size of each call."""

    def __init__(self, function):
        self.function = function
        self.batches: list[int] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.batches.append(next(iter(inputs.values())).shape[0])
        return self.function(inputs)


def _column(values: Array) -> Array:
    return values.reshape(-1, 1, 1)


def _encode(inputs):
    return {"prompt_embeds": (inputs["input_ids"] * inputs["attention_mask"]).astype(np.float32)[:, :, None]}


def _decode(inputs):
    latents = inputs["latents"]
    assert latents.ndim == 4
    values = np.rint(np.repeat(latents, 3, axis=-1)[..., :3] * 10 + 128)
    return {"image": ((values + np.arange(3)) % 256).astype(np.uint8)}  # Wraps where a picture is clipped: latents here may be large.


def _condition(inputs):
    return _column(inputs["condition"].mean((1, 2))) + inputs["position_ids"].mean()


def _prelude(inputs):
    x = inputs["hidden_states"]
    indicator = np.broadcast_to(_column(inputs["timestep"]), (len(x), 1, 1)).copy()
    return {"x": x, "temb": inputs["timestep"], "indicator": indicator}


def _body(inputs):
    return {"y": np.float32(2) * inputs["x"] + _condition(inputs)}


def _head(inputs):
    return {"sample": inputs["y"] + _column(inputs["temb"])}


def _whole(inputs):
    prelude = _prelude(inputs)
    return _head({**inputs, **prelude, **_body({**inputs, **prelude})})


def whole_runners() -> dict[str, Recorder]:
    return {"text_encoder": Recorder(_encode), "transformer": Recorder(_whole), "vae_decoder": Recorder(_decode)}


def split_runners() -> dict[str, Recorder]:
    pieces = {"transformer_prelude": _prelude, "transformer_body": _body, "transformer_head": _head}
    return {"text_encoder": Recorder(_encode), "vae_decoder": Recorder(_decode)} | {n: Recorder(f) for n, f in pieces.items()}
