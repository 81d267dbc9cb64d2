"""Runs a TensorRT or TensorRT-RTX plan on the GPU: for the builder's verification, and in Triton for TensorRT-RTX, whose plans its own
back end does not load.

Imports torch and TensorRT only when a piece is loaded. torch owns the memory and the stream.
"""

from __future__ import annotations

import importlib
import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_api.engine_manifest import Piece, TensorSpec
from engine_runtime.arrays import is_numpy
from engine_runtime.errors import EngineFilesError, PieceError
from engine_runtime.executors.inputs import NUMPY_NAMES, PieceInputError, piece_inputs
from engine_runtime.executors.tensorrt_library import load_library
from engine_runtime.nvidia import LIBRARY_NAMES
from engine_runtime.pieces import Array


class TensorRtRunner:
    """A deserialized plan; calls from several threads take turns, for a context runs one at a time."""

    def __init__(self, folder: Path, piece: Piece) -> None:
        """Load `piece.file` of `folder` onto the first GPU.

        Args:
            folder: Holds the piece's file.
            piece: What the builder wrote about it.

        Raises:
            EngineFilesError: the file is not there, or this GPU or TensorRT cannot load it.
            PieceError: there is no GPU.
            ModuleNotFoundError: TensorRT or torch is not installed; the message says how to.
        """
        file = folder / piece.file
        if not file.is_file():
            raise EngineFilesError(f"piece {piece.name}: {file} does not exist; build the engine again, or copy all of its folder")
        if not file.stat().st_size:  # Which nothing could map.
            raise EngineFilesError(f"piece {piece.name}: {file} is empty; build the engine again, or copy all of its folder")
        self.piece = piece
        self._torch = _gpu_torch(piece)
        library = load_library(piece.options.get("library", "tensorrt"))
        # Mapped: a plan has the size of the weights, and TensorRT copies them to the GPU, so the host need not hold all of them at once.
        with library.messages() as messages, file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            self._engine = library.module.Runtime(library.logger).deserialize_cuda_engine(content)
        if self._engine is None:
            raise EngineFilesError(
                f"piece {piece.name}: {file} was built by {piece.options.get('version')} for compute capability "
                f"{piece.options.get('computeCapability')}, and {library.module.__version__} on {self._torch.cuda.get_device_name(0)} "
                f"cannot load it ({'; '.join(messages.errors[-2:]) or 'no reason given'}): build it for this GPU and version"
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._torch.cuda.Stream()
        self._turn = threading.Lock()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it on numpy arrays or tensors; outputs are torch tensors on the GPU, complete when it returns.

        They stay there whatever the inputs are: a loop begins with noise on the host, and what follows would be copied at each step.

        Raises:
            PieceInputError: inputs that do not fit the piece or the plan's profile.
            PieceError: TensorRT did not run it.
        """
        arrays = piece_inputs(self.piece, inputs)
        check_profile(self.piece, arrays)
        before = self._torch.cuda.current_stream()
        with self._turn, self._torch.cuda.stream(self._stream):
            self._stream.wait_stream(before)  # Whoever computed the inputs may still be at it.
            tensors = {name: self._to_gpu(array) for name, array in arrays.items()}
            outputs = self._run(tensors)
            self._stream.synchronize()  # Triton reads them on streams of its own.
        return outputs

    def _run(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        for name, tensor in tensors.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        outputs = {spec.name: self._output(spec) for spec in self.piece.outputs}
        for name, tensor in outputs.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise PieceError(f"{self.piece.name}: TensorRT did not run it; its reason is in the log above")
        return outputs

    def _output(self, spec: TensorSpec) -> Any:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        if min(shape, default=0) < 0:
            raise PieceError(f"{self.piece.name}: output {spec.name} has no known shape {shape}; report it")
        return self._torch.empty(shape, dtype=getattr(self._torch, NUMPY_NAMES[spec.dtype]), device="cuda")

    def _to_gpu(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(array) if is_numpy(array) else array
        return tensor.to("cuda").contiguous()


def check_profile(piece: Piece, arrays: Mapping[str, Array]) -> None:
    """Check inputs against the sizes that the plan was built for.

    Raises:
        PieceInputError: names the input, its shape, and the least and largest shape.
    """
    for name, array in arrays.items():
        profile = piece.options.get(f"profile.{name}")
        if profile is None:
            continue
        least, _, most = (tuple(map(int, shape.split("x"))) for shape in profile.split())
        shape = tuple(array.shape)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise PieceInputError(
                f"{piece.name}: input {name} is {list(shape)}, the plan takes {list(least)} to {list(most)}; build for that size"
            )


def _gpu_torch(piece: Piece) -> Any:
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: a plan needs it for memory on the GPU; `pip install torch`", name=error.name) from error
    if not torch.cuda.is_available():
        kind, capability = LIBRARY_NAMES[piece.options.get("library", "tensorrt")], piece.options.get("computeCapability")
        raise PieceError(
            f"piece {piece.name} is a {kind} plan for compute capability {capability}, and this machine has no GPU; "
            "run it on such a GPU, or verify the quantized model in torch with `verification: Simulated`"
        )
    return torch
