"""The one generation loop: encode → denoise → decode. The builder runs it over torch, the `pipeline` model over Triton.

It knows no architecture: names, schedules and shapes come from the manifest, all arithmetic of a family is in the pieces.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from diffusion_api.engine_manifest import EngineManifest, GuidanceMode, LatentDecoder, ShapePlan
from diffusion_api.recipe import NoStepCache
from engine_runtime.arrays import as_float32, concatenate, concatenate_named, repeat_rows, rows_of, to_kind_of, to_numpy
from engine_runtime.denoiser import Denoiser, PieceCaller, is_split
from engine_runtime.errors import InvalidRequestError
from engine_runtime.noise import initial_latents
from engine_runtime.output_checks import check_latents, check_outputs
from engine_runtime.pieces import Array, PieceRunner
from engine_runtime.prompt_cache import PromptCache
from engine_runtime.requests import DenoisedBatch, EncodedPrompts, GenerationRequest, GenerationResult, OnBody, OnStep, StepEvent, Timings
from engine_runtime.step_cache import step_cache_decider
from engine_runtime.tokenizer import Tokenizer

TEXT_ENCODER = "text_encoder"
GUIDANCE_INPUT = "guidance"
NEGATIVE_PROMPT = ""


class Engine:
    """An engine that generates; safe for many threads where its runners are."""

    def __init__(
        self,
        manifest: EngineManifest,
        runners: Mapping[str, PieceRunner],
        constants: Mapping[str, Array],
        tokenizer: Tokenizer,
        *,
        prompt_cache_size: int = 0,
        max_batch_size: int | None = None,
    ) -> None:
        """Put an engine together.

        Args:
            manifest: What it is made of. `pieces` may be empty; then runners are given every array by name and pick.
            runners: By piece name: `text_encoder`, the denoiser (`transformer`, or its prelude, body and head), decoders.
            constants: Tensors that the shapes name, without batch axis.
            tokenizer: Turns prompts into tokens.
            prompt_cache_size: Prompts whose conditions are kept. Leave it 0 where the text encoder may change.
            max_batch_size: Largest batch of a piece; None is the manifest's.

        Raises:
            EngineFilesError: A piece is missing.
        """
        self.manifest = manifest
        self.prompt_cache = PromptCache(prompt_cache_size)
        self._constants = constants
        self._tokenizer = tokenizer
        self._split = is_split(runners, step_cache=not isinstance(manifest.step_cache, NoStepCache))
        self._call = PieceCaller(runners, manifest.pieces, max_batch_size or manifest.max_batch_size)

    def generate(
        self, requests: Sequence[GenerationRequest], on_step: OnStep | None = None, on_body: OnBody | None = None
    ) -> list[GenerationResult]:
        """Generate a batch of requests of one size.

        Raises:
            InvalidRequestError: A request is wrong, or their sizes differ.
            DegenerateOutputError: The denoiser gave NaN, or a picture has one value everywhere.
            GenerationCancelledError: `on_step` raised it.
        """
        started = time.perf_counter()
        plan = self._plan(requests)
        encoded = self.encode([request.prompt for request in requests])
        encode_done = time.perf_counter()
        batch = self.denoise(requests, encoded.conditions, on_step, on_body)
        denoise_done = time.perf_counter()
        outputs = {stream: to_numpy(output) for stream, output in self.decode(plan, batch.latents).items()}
        check_outputs(outputs)
        timings = Timings(encode_done - started, denoise_done - encode_done, time.perf_counter() - denoise_done)
        return [
            GenerationResult(
                outputs={stream: output[row] for stream, output in outputs.items()},
                latents={stream: latent[row] for stream, latent in batch.latents.items()},
                seed=request.seed,
                size=plan.shape.name,
                computed=tuple(bool(step) for step in batch.computed[row]),
                prompt_was_cut=encoded.was_cut[row],
                timings=timings,
            )
            for row, request in enumerate(requests)
        ]

    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Turn prompts into the denoiser's conditions, from the cache where they are in it."""
        tokens = self._tokenizer(prompts)
        known = {prompt: self.prompt_cache.get(prompt) for prompt in dict.fromkeys(prompts)}
        missing = [prompt for prompt, conditions in known.items() if conditions is None]
        if missing:
            rows = [prompts.index(prompt) for prompt in missing]
            inputs = {"input_ids": tokens.input_ids[rows], "attention_mask": tokens.attention_mask[rows]}
            outputs = self._call(TEXT_ENCODER, inputs)
            conditions = {name: outputs[output] for output, name in self.manifest.text.outputs.items()}
            for row, prompt in enumerate(missing):
                known[prompt] = rows_of(conditions, [row])
                self.prompt_cache.put(prompt, rows_of(conditions, [row]))
        parts = [entry for entry in (known[prompt] for prompt in prompts) if entry is not None]
        return EncodedPrompts(concatenate_named(parts), tokens.was_cut)

    def denoise(
        self,
        requests: Sequence[GenerationRequest],
        conditions: Mapping[str, Array],
        on_step: OnStep | None = None,
        on_body: OnBody | None = None,
    ) -> DenoisedBatch:
        """Run Euler's method along the schedule: x ← x + (sigma[i+1] − sigma[i]) × velocity, in FP32.

        Args:
            requests: B requests of one size.
            conditions: Their denoiser inputs from `encode`, each [B, …].
            on_step: Called after each step with latents and predictions.
            on_body: Called each time the transformer blocks ran, with indicator and residuals of the requests they ran for;
                needs the transformer in prelude, body and head.

        Raises:
            InvalidRequestError: A request is wrong, or their sizes differ.
            NotFiniteError: The denoiser gave NaN.

        Source: Liu et al. 2022, arXiv:2209.03003, "Flow Straight and Fast" (rectified flow), as in diffusers'
        `FlowMatchEulerDiscreteScheduler`.
        """
        plan = self._plan(requests)
        if on_body is not None and not self._split:
            raise ValueError("on_body needs runners for transformer_prelude, transformer_body and transformer_head alone")
        scales = self._scales(requests)
        guided = [row for row, scale in enumerate(scales) if self.manifest.guidance.mode is GuidanceMode.CLASSIFIER_FREE and scale > 1]
        owners = [*range(len(requests)), *guided]
        fixed = self._fixed_inputs(plan, conditions, scales, owners, guided)
        latents = self._initial(plan, requests)
        steps = len(plan.sigmas) - 1
        decider = step_cache_decider(self.manifest.step_cache, steps, len(requests))
        denoiser = Denoiser(self._call, self.manifest, decider, owners, split=self._split)
        mask = np.ones((len(requests), steps), dtype=np.bool_)
        for step in range(steps):
            inputs = {**fixed, **self._step_inputs(latents, plan.sigmas[step], owners)}
            outputs, mask[:, step] = denoiser.velocities(step, inputs, on_body)
            velocities = {s.name: _guide(as_float32(outputs[s.output]), scales, guided) for s in self.manifest.streams}
            before = {name: to_kind_of(latents[name], velocity) for name, velocity in velocities.items()}
            change = plan.sigmas[step + 1] - plan.sigmas[step]
            latents = {name: before[name] + change * velocity for name, velocity in velocities.items()}
            if on_step is not None:
                predictions = {name: before[name] - plan.sigmas[step] * velocity for name, velocity in velocities.items()}
                on_step(StepEvent(step, steps, plan, latents, predictions, mask[:, step]))
        check_latents(latents)
        return DenoisedBatch(plan, latents, mask)

    def decode(self, plan: ShapePlan, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Turn latents [B, …] by stream into what users get, by stream: pictures are UINT8 [B, H, W, 3]."""
        return {decoder.stream: self._decode_stream(plan, decoder, latents[decoder.stream]) for decoder in self.manifest.decoders}

    def _decode_stream(self, plan: ShapePlan, decoder: LatentDecoder, latent: Array) -> Array:
        if decoder.reshape:
            axes = [plan.dims[axis] if isinstance(axis, str) else axis for axis in decoder.reshape]
            latent = latent.reshape(latent.shape[0], *axes)
        return self._call(decoder.piece, {decoder.input: latent})[decoder.output]

    def _plan(self, requests: Sequence[GenerationRequest]) -> ShapePlan:
        try:
            plans = [self.manifest.shape_plan(request.size) for request in requests]
        except KeyError as unknown:
            raise InvalidRequestError(unknown.args[0]) from None
        if any(plan is not plans[0] for plan in plans):
            raise InvalidRequestError("a batch has pictures of one size; ask for each size on its own")
        return plans[0]

    def _scales(self, requests: Sequence[GenerationRequest]) -> list[float]:
        default = self.manifest.guidance.scale
        return [default if request.guidance_scale is None else request.guidance_scale for request in requests]

    def _fixed_inputs(
        self, plan: ShapePlan, conditions: Mapping[str, Array], scales: Sequence[float], owners: Sequence[int], guided: Sequence[int]
    ) -> dict[str, Array]:
        """Denoiser inputs that stay the same over the steps: rows are the requests, then the negative ones of those guided."""
        inputs = dict(conditions)
        if guided:
            negative = self.encode([NEGATIVE_PROMPT] * len(guided)).conditions
            inputs = concatenate_named([inputs, negative])
        for name, tensor in plan.constants.items():
            inputs[name] = repeat_rows(self._constants[tensor], len(owners))
        if self.manifest.guidance.mode is GuidanceMode.EMBEDDED:
            inputs[GUIDANCE_INPUT] = np.array([scales[owner] for owner in owners], dtype=np.float32)
        return inputs

    def _step_inputs(self, latents: Mapping[str, Array], sigma: float, owners: Sequence[int]) -> dict[str, Array]:
        inputs: dict[str, Array] = {self.manifest.timestep_input: np.full(len(owners), sigma, dtype=np.float32)}
        for stream in self.manifest.streams:
            latent = latents[stream.name]
            inputs[stream.input] = latent if len(owners) == latent.shape[0] else latent[list(owners)]
        return inputs

    def _initial(self, plan: ShapePlan, requests: Sequence[GenerationRequest]) -> dict[str, Array]:
        drawn = [self._initial_of(plan, request) for request in requests]
        return {name: concatenate([as_float32(latents[name])[None] for latents in drawn]) for name in plan.latents}

    def _initial_of(self, plan: ShapePlan, request: GenerationRequest) -> Mapping[str, Array]:
        if request.latents is None:
            try:
                return initial_latents(plan, request.seed)
            except ValueError as error:
                raise InvalidRequestError(str(error)) from None
        for name, shape in plan.latents.items():
            given = tuple(request.latents[name].shape) if name in request.latents else None
            if given != tuple(shape):
                raise InvalidRequestError(f"latents of stream {name} have the axes {given}; size {plan.shape.name} needs {tuple(shape)}")
        return request.latents


def _guide(velocity: Array, scales: Sequence[float], guided: Sequence[int]) -> Array:
    """Apply classifier-free guidance, negative + scale × (positive − negative), and drop the negative rows.

    Source: Ho and Salimans 2022, arXiv:2207.12598, in diffusers' convention, where scale 1 is no guidance.
    """
    if not guided:
        return velocity
    requests = velocity.shape[0] - len(guided)
    result = velocity[list(range(requests))]
    for offset, row in enumerate(guided):
        negative = velocity[requests + offset]
        result[row] = negative + scales[row] * (velocity[row] - negative)
    return result
