"""Runs a graph in torch for the generation loop: the reference, calibration, and quality where the engine is only simulated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from diffusion_api.engine_manifest import Dtype
from engine_builder.border_types import TORCH_DTYPES
from engine_builder.families.base import GraphModule
from engine_runtime.arrays import to_numpy
from engine_runtime.pieces import Array


class TorchRunner:
    """A `PieceRunner` over a `GraphModule`: numpy arrays or torch tensors in; numpy arrays out of a CPU, tensors out of a GPU.

    On a GPU a copy to the host after each piece would count as the model's time; there calls return before the GPU is done.
    """

    def __init__(self, graph: GraphModule, *, in_torch: bool | None = None) -> None:
        """Take a graph on its device.

        Args:
            graph: What is run.
            in_torch: Give tensors on the graph's device; unset: where that is no CPU.
        """
        self._graph = graph
        self._device = next(graph.module.parameters(), torch.empty(0)).device
        self._in_torch = self._device.type != "cpu" if in_torch is None else in_torch

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run it on inputs in the types its borders name; others than it takes are left aside. Floating-point outputs are FP32."""
        with torch.inference_mode():
            outputs = self._graph.module(*(self._tensor(inputs[spec.name], spec.dtype) for spec in self._graph.inputs))
        values = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {spec.name: self._output(value) for spec, value in zip(self._graph.outputs, values, strict=True)}

    def _tensor(self, array: Array, dtype: Dtype) -> torch.Tensor:
        if isinstance(array, torch.Tensor) and self._in_torch:
            return array.to(self._device, TORCH_DTYPES[dtype])
        host = np.require(to_numpy(array), requirements=("C", "W"))  # torch warns of arrays that it could not write to.
        return torch.from_numpy(host).to(self._device, TORCH_DTYPES[dtype])

    def _output(self, value: torch.Tensor) -> Array:
        tensor = value.detach()
        if self._in_torch:
            return tensor.float() if tensor.is_floating_point() else tensor
        tensor = tensor.cpu()
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def torch_runners(graphs: tuple[GraphModule, ...]) -> dict[str, TorchRunner]:
    """Return the runners by piece name, as `Engine` takes them."""
    return {graph.name: TorchRunner(graph) for graph in graphs}
