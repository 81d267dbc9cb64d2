"""A client of the `pipeline` model over gRPC: yields previews, then the result."""

from __future__ import annotations

import json
import queue
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from engine_runtime.errors import GenerationError
from engine_runtime.triton.config import PIPELINE, PIPELINE_INPUTS

_NUMPY_TYPES = {"TYPE_STRING": np.object_, "TYPE_INT64": np.int64, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_}


# A connection of its own: gRPC would else share one with every other client of the same address, which none of them then can leave.
CHANNEL_ARGUMENTS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
ENDING_WORDS = ("Server exiting", "Server not ready")
"""What Triton 2.51 says of requests from SIGTERM on."""


class ServerError(GenerationError):
    """The server refused or failed; the message is its own."""


class ServerGoneError(ServerError):
    """The server ends, or the connection broke; a new connection may lead to another server."""


@dataclass(frozen=True)
class GeneratedImage:
    """A preview or the result."""

    data: bytes
    """The picture in `content_type`."""
    content_type: str
    """For example `image/png`."""
    metadata: dict[str, Any]
    """`type` is `preview` or `result`; seed, size, steps computed and skipped, milliseconds by stage."""

    @property
    def is_preview(self) -> bool:
        """True before the result."""
        return bool(self.metadata["type"] == "preview")


class GenerateOptions(TypedDict, total=False):
    """What `PipelineClient.generate` takes beside the prompt."""

    seed: int | None
    size: str | None
    guidance_scale: float | None
    output_format: str
    preview_every: int
    timeout_seconds: float


class PipelineClient:
    """One connection and one stream, kept open over many requests, which are made one after the other.

    Opening them anew costs a request some milliseconds. That happens where the server behind them ended between two requests, as a
    pod behind a Service does. For one thread; more threads take a client each.
    """

    def __init__(self, url: str) -> None:
        """Name the server; nothing is opened before the first request.

        Args:
            url: Host and gRPC port, for example `localhost:8001`.
        """
        self.url = url
        self._client = _connected(url)
        self._answers: queue.SimpleQueue[tuple[Any, Exception | None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def generate(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        size: str | None = None,
        guidance_scale: float | None = None,
        output_format: str = "png",
        preview_every: int = 0,
        timeout_seconds: float = 600.0,
    ) -> Iterator[GeneratedImage]:
        """Generate one picture; closing the iterator cancels the request.

        Args:
            prompt: Text.
            seed: Seed of the noise; None is a random one, which the result names.
            size: Output size, for example `1024x1024`; None is the engine's default.
            guidance_scale: None is the engine's default.
            output_format: `png`, `webp`, `jpeg` or `raw`.
            preview_every: A preview after every so many steps; 0 is none.
            timeout_seconds: Longest wait for the next preview or the result.

        Yields:
            Previews, where they are wanted, and last the result.

        Raises:
            ServerError: The request is wrong, the queue is full, or the generation failed.
        """
        values = {
            "prompt": prompt.encode(),
            "seed": seed,
            "size": None if size is None else size.encode(),
            "guidance_scale": guidance_scale,
            "output_format": output_format.encode(),
            "preview_every": preview_every or None,
        }
        inputs, was_open, answered = _inputs(values), self._answers is not None, False
        try:
            with closing(self._ask(inputs, timeout_seconds)) as answers:
                for answer in answers:
                    answered = True
                    yield answer
        except ServerGoneError:
            if answered or not was_open:
                raise
            self.close()
            self._client = _connected(self.url)
            yield from self._ask(inputs, timeout_seconds)

    def close(self) -> None:
        """Cancel what runs and close the connection."""
        self._end_stream()
        self._client.close()

    def _ask(self, inputs: list[Any], timeout_seconds: float) -> Generator[GeneratedImage]:
        answers = self._answers or self._open()
        ended = False
        try:
            self._client.async_stream_infer(PIPELINE, inputs)
            for answer in _answers(answers, timeout_seconds):
                ended = not answer.is_preview
                yield answer
        except InferenceServerException as error:  # The stream broke since the last request.
            raise ServerGoneError(str(error.message())) from None
        finally:
            if not ended:
                self._end_stream()  # What still comes belongs to a request that nobody waits for.

    def _open(self) -> queue.SimpleQueue[tuple[Any, Exception | None]]:
        _require_live(self._client, self.url)
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._client.start_stream(lambda result, error: answers.put((result, error)))
        self._answers = answers
        return answers

    def _end_stream(self) -> None:
        if self._answers is not None:
            self._answers = None
            self._client.stop_stream(cancel_requests=True)


def generate(url: str, prompt: str, **options: Unpack[GenerateOptions]) -> Iterator[GeneratedImage]:
    """Generate one picture over a connection of its own; see `PipelineClient.generate`."""
    with PipelineClient(url) as client:
        yield from client.generate(prompt, **options)


def _connected(url: str) -> Any:
    return triton.InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS)


def _require_live(client: Any, url: str) -> None:
    """Ask first: a stream to nowhere fails at an unforeseeable moment, and without the address."""
    try:
        client.is_server_live()
    except InferenceServerException as error:
        raise ServerError(f"no Triton answers at {url} ({error.message()}); start one with `diffusionctl run`") from None


def _inputs(values: dict[str, Any]) -> list[Any]:
    inputs = []
    for field in PIPELINE_INPUTS:
        value = values.get(field.name)
        if value is None:
            continue
        data_type = "BYTES" if field.data_type == "TYPE_STRING" else field.data_type.removeprefix("TYPE_")
        tensor = triton.InferInput(field.name, [1], data_type)
        tensor.set_data_from_numpy(np.array([value], dtype=_NUMPY_TYPES[field.data_type]))
        inputs.append(tensor)
    return inputs


def _answers(answers: queue.SimpleQueue[tuple[Any, Exception | None]], timeout_seconds: float) -> Iterator[GeneratedImage]:
    while True:
        try:
            result, error = answers.get(timeout=timeout_seconds)
        except queue.Empty:
            raise ServerError(f"no answer within {timeout_seconds:g} s") from None
        if error is not None:
            raise _server_error(error)
        image, content_type, metadata = (result.as_numpy(name)[0] for name in ("image", "content_type", "metadata"))
        answer = GeneratedImage(bytes(image), content_type.decode(), json.loads(metadata))
        yield answer
        if not answer.is_preview:
            return


def _server_error(error: Exception) -> ServerError:
    if not isinstance(error, InferenceServerException):
        return ServerError(str(error))
    message = str(error.message())
    # A model's own UNAVAILABLE, for example a full queue, comes without a status.
    is_gone = error.status() == "StatusCode.UNAVAILABLE" or message.endswith(ENDING_WORDS)
    return ServerGoneError(message) if is_gone else ServerError(message)
