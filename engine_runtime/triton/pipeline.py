"""The Triton model that users call: one thread a request runs the generation loop over BLS.

Decoupled: previews first, then the result. Requests share denoising steps in the pieces' dynamic batchers, not here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from engine_runtime.arrays import to_numpy
from engine_runtime.errors import GenerationCancelledError, InvalidRequestError, QueueFullError
from engine_runtime.generation import Engine
from engine_runtime.images import thumbnail
from engine_runtime.repository import load_engine_files
from engine_runtime.requests import GenerationResult, OnStep, StepEvent
from engine_runtime.triton.admission import Admission
from engine_runtime.triton.bls import BlsRunner
from engine_runtime.triton.config import PARAMETER_CONCURRENT, PARAMETER_PENDING, PARAMETER_PROMPTS, PIPELINE_INPUTS
from engine_runtime.triton.metrics import PipelineMetrics
from engine_runtime.triton.request_fields import Fields, PipelineAnswer, PipelineRequest, parse_request, preview_answer, result_answer


class TritonPythonModel:
    """See the module."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine's files; pieces are loaded by Triton as models of their own."""
        files = load_engine_files(Path(args["model_repository"]) / args["model_version"])
        settings = {key: int(value["string_value"]) for key, value in json.loads(args["model_config"])["parameters"].items()}
        runners = {name: BlsRunner(piece) for name, piece in files.manifest.pieces.items()}
        prompts = settings[PARAMETER_PROMPTS]
        self._engine = Engine(files.manifest, runners, files.constants, files.tokenizer, prompt_cache_size=prompts)
        self._admission = Admission(settings[PARAMETER_CONCURRENT], settings[PARAMETER_PENDING])
        self._pool = ThreadPoolExecutor(settings[PARAMETER_CONCURRENT], thread_name_prefix="request")
        self._metrics = PipelineMetrics()

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> None:
        """Queue the requests and return at once."""
        for request in requests:
            answers = _Answers(request.get_response_sender())
            try:
                self._admission.enter()
            except QueueFullError as error:
                self._metrics.finished("refused")
                answers.fail(str(error), pb_utils.TritonError.UNAVAILABLE)
                continue
            self._metrics.pending(self._admission)
            self._pool.submit(self._serve, _fields(request), answers, time.monotonic())

    def finalize(self) -> None:
        """Let running requests end; waiting ones are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _serve(self, fields: Fields, answers: _Answers, queued_at: float) -> None:
        started = time.monotonic()
        end = self._generate(fields, answers, started, started - queued_at)
        # First let it out, then answer: whoever has an answer and asks again must not meet their last request in the queue.
        self._admission.leave(end.seconds)
        end.answer()
        # Last: each metric is a call to the server's process, and all of them take a millisecond.
        self._metrics.pending(self._admission)
        self._metrics.finished(end.outcome)
        self._metrics.prompt_cache(self._engine.prompt_cache.hits, self._engine.prompt_cache.misses)
        if end.result is not None:
            self._metrics.generated(end.result, started - queued_at)

    def _generate(self, fields: Fields, answers: _Answers, started: float, queued_seconds: float) -> _End:
        try:
            answers.check_cancelled()
            request = parse_request(fields, self._engine.manifest)
            (result,) = self._engine.generate([request.generation], self._on_step(request, answers))
            ran = time.monotonic() - started
            answer = result_answer(request, result, queued_seconds=queued_seconds)
        except InvalidRequestError as error:
            return _End("invalid", partial(answers.fail, str(error), pb_utils.TritonError.INVALID_ARG))
        except GenerationCancelledError as error:
            return _End("cancelled", partial(answers.fail, str(error), pb_utils.TritonError.CANCELLED))
        except Exception as error:  # Every request gets an answer; the message is all that its sender will see.
            pb_utils.Logger.log_error(f"generation failed: {type(error).__name__}: {error}")
            return _End("failed", partial(answers.fail, f"generation failed: {error}", pb_utils.TritonError.INTERNAL))
        return _End("ok", partial(answers.finish, answer), ran, result)

    def _on_step(self, request: PipelineRequest, answers: _Answers) -> OnStep:
        def on_step(event: StepEvent) -> None:
            answers.check_cancelled()
            is_last = event.step + 1 == event.steps
            if request.preview_every and not is_last and (event.step + 1) % request.preview_every == 0:
                decoded = self._engine.decode(event.plan, event.predictions)
                picture = to_numpy(next(iter(decoded.values())))[0]
                small = thumbnail(picture if picture.ndim == 3 else picture[0]).astype(np.uint8)
                answers.send(preview_answer(request, small, event.step + 1, event.steps))

        return on_step


@dataclass(frozen=True)
class _End:
    """How a request ended."""

    outcome: str
    """One of `REQUEST_OUTCOMES`."""
    answer: Callable[[], None]
    """Sends the last answer."""
    seconds: float | None = None
    """How long it ran; None where it came to nothing."""
    result: GenerationResult | None = None


class _Answers:
    """The way back to the client."""

    def __init__(self, sender: pb_utils.InferenceResponseSender) -> None:
        self._sender = sender

    def check_cancelled(self) -> None:
        if self._sender.is_cancelled():
            raise GenerationCancelledError("the client has gone")

    def send(self, answer: PipelineAnswer, *, final: bool = False) -> None:
        values = {"image": answer.image, "content_type": answer.content_type.encode(), "metadata": answer.metadata.encode()}
        tensors = [pb_utils.Tensor(name, np.array([value], dtype=np.object_)) for name, value in values.items()]
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)

    def finish(self, answer: PipelineAnswer) -> None:
        try:
            self.send(answer, final=True)
        except pb_utils.TritonModelException as error:  # For example a shared memory that has no room for the picture.
            pb_utils.Logger.log_error(f"an answer could not be sent: {error}")
            self.fail(f"the picture could not be sent: {error}", pb_utils.TritonError.INTERNAL)

    def fail(self, message: str, code: int) -> None:
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _fields(request: pb_utils.InferenceRequest) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    tensors = {field.name: pb_utils.get_input_tensor_by_name(request, field.name) for field in PIPELINE_INPUTS}
    return {name: np.array(tensor.as_numpy()) for name, tensor in tensors.items() if tensor is not None}
