from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

from diffusion_api.engine_manifest import Dtype, TensorSpec
from engine_builder.errors import CompileError
from engine_builder.export import ExportedGraph, check_parity, example_inputs, export_graph
from engine_builder.export.block_kind import kind_of
from engine_builder.export.trace import OPSET
from engine_builder.families.base import GraphModule
from engine_builder.quantization import quantize
from engine_builder.repeated_block import RepeatedBlock
from tests.builder.export.conftest import RECIPES, TRACED, WIDTH, calibrate

SHAPES = (({"tokens": 6}, 2), ({"tokens": 11}, 3))


class Layer(RepeatedBlock):
    """Mixes tokens and channels, with a length of the input in the graph."""

    outputs = 2

    def __init__(self, *, slope: float = 1.0) -> None:
        super().__init__()
        self.slope = slope
        self.up = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("gain", torch.rand(WIDTH) + 0.5)

    def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heads = x.unflatten(-1, (4, -1)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
        return x + self.slope * torch.tanh(self.up(mixed + shift[:, None])), y + x * self.gain


class Stack(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers: RepeatedBlock) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        y = x
        for layer in self.layers:
            x, y = layer(x, y, shift)
        return x + y


def stack(*layers: RepeatedBlock) -> GraphModule:
    tokens = ("tokens", WIDTH)
    return GraphModule(
        name="stack",
        component="transformer",
        module=Stack(*layers).eval().requires_grad_(False),
        inputs=(TensorSpec(name="x", dtype=Dtype.FP32, dims=tokens), TensorSpec(name="shift", dtype=Dtype.FP32, dims=(WIDTH,))),
        outputs=(TensorSpec(name="z", dtype=Dtype.FP32, dims=tokens),),
    )


def parity(exported: ExportedGraph, graph: GraphModule) -> float:
    return check_parity(exported, graph, [example_inputs(graph, axes, batch) for axes, batch in SHAPES])


def operators(exported: ExportedGraph, op_type: str) -> int:
    return sum(node.op_type == op_type for node in ir.load(exported.path).graph)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What torch was asked to trace, in order."""
    modules: list[nn.Module] = []
    export = torch.export.export

    def spied(module: nn.Module, *arguments: object, **keywords: object) -> object:
        modules.append(module)
        return export(module, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.export, "export", spied)
    return modules


@pytest.mark.parametrize("format", RECIPES)
def test_blocks_of_one_kind_are_traced_once_and_keep_their_own_weights_and_scales(
    tmp_path: Path, traced: list[nn.Module], format: str
) -> None:
    torch.manual_seed(0)
    graph = stack(Layer(), Layer(), Layer())
    for scale, layer in enumerate(graph.module.layers, start=1):
        layer.up.weight *= scale  # So that each has other scales.
    quantize(graph.module, RECIPES[format], calibrate=calibrate, exclude=[])
    exported = export_graph(graph, tmp_path / "stack.onnx", example=TRACED, emulate=True)
    assert traced == [graph.module, graph.module.layers[0]]
    assert parity(exported, graph) < 1e-4
    assert exported.quantizers == (0 if format == "none" else 6)


def test_a_block_with_another_attribute_is_traced_apart(tmp_path: Path, traced: list[nn.Module]) -> None:
    graph = stack(Layer(), Layer(slope=-2.0), Layer())
    assert parity(export_graph(graph, tmp_path / "stack.onnx", example=TRACED), graph) < 1e-4
    assert traced[1:] == [graph.module.layers[0], graph.module.layers[1]]


class Processor:
    """What a module may hand its work to, as those of diffusers do."""

    def __init__(self, strength: float) -> None:
        self.strength = strength


def strength_of(processor: Processor) -> float:
    return processor.strength


class Number(int):
    """An int with more to it than the int."""

    def __new__(cls, value: float) -> Number:
        made = super().__new__(cls, 0)
        made.value = value
        return made

    value: float


class Uncopied(Processor):
    """Says nothing of its state."""

    def __reduce_ex__(self, protocol: object) -> str:
        raise LookupError("not to be copied")


class Odd(Layer):
    """A layer with something of its own that is neither a parameter nor a buffer."""

    def __init__(self, number: float, attribute: Callable[[float], object], read: Callable[[Any], torch.Tensor | float]) -> None:
        super().__init__()
        self.own, self.read = attribute(number), read

    def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().forward(x, y, shift)
        return x * self.read(self.own), y


@pytest.mark.parametrize(
    ("attribute", "read"),
    [
        (lambda number: torch.full((WIDTH,), number), lambda own: own),
        (lambda number: [torch.full((WIDTH,), number)], lambda own: own[0]),
        (lambda number: {"scale": (torch.full((), number),)}, lambda own: own["scale"][0]),
        (Processor, strength_of),
        (lambda number: partial(float, number), lambda own: own()),
        (lambda number: cache(lambda: number), lambda own: own()),
        (Number, lambda own: own.value),
        (Uncopied, strength_of),
    ],
    ids=["tensor", "list", "mapping", "object", "partial", "cache", "subclass", "uncopied"],
)
def test_blocks_that_differ_in_more_than_weights_are_traced_apart(
    tmp_path: Path, traced: list[nn.Module], attribute: Callable[[float], object], read: Callable[[Any], torch.Tensor | float]
) -> None:
    graph = stack(Odd(1.0, attribute, read), Odd(5.0, attribute, read))
    assert parity(export_graph(graph, tmp_path / "stack.onnx", example=TRACED), graph) < 1e-4
    assert traced[1:] == list(graph.module.layers)


def test_blocks_with_equal_objects_of_their_own_are_traced_once(tmp_path: Path, traced: list[nn.Module]) -> None:
    graph = stack(*(Odd(2.0, Processor, strength_of) for _ in range(3)))
    assert parity(export_graph(graph, tmp_path / "stack.onnx", example=TRACED), graph) < 1e-4
    assert traced[1:] == [graph.module.layers[0]]


def test_what_refers_to_itself_in_many_ways_takes_no_time() -> None:
    nested: Any = ()
    for _ in range(40):
        nested = (nested, nested)
    friends = [Processor(1.0) for _ in range(12)]
    for each in friends:
        each.__dict__["friends"] = friends
    layers = Odd(1.0, lambda _: [nested, friends], strength_of), Odd(1.0, lambda _: [nested, friends], strength_of)
    assert kind_of(layers[0]) == kind_of(layers[1])


def test_what_is_nested_too_deeply_is_equal_to_itself_alone() -> None:
    def deep(number: float) -> object:
        nested: object = [number]
        for _ in range(2000):
            nested = [nested]
        return nested

    assert kind_of(Odd(1.0, deep, strength_of)) != kind_of(Odd(1.0, deep, strength_of))


class Numbered(Layer):
    """Reads its number, or only has one."""

    def __init__(self, number: int, *, reads: bool) -> None:
        super().__init__()
        self.number = number
        self.reads = reads
        self.unread = frozenset() if reads else frozenset({"number"})

    def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().forward(x, y, shift)
        return x * (self.number if self.reads else 2), y


@pytest.mark.parametrize("reads", [True, False])
def test_a_number_keeps_blocks_apart_unless_the_block_says_that_it_is_not_read(
    tmp_path: Path, traced: list[nn.Module], reads: bool
) -> None:
    graph = stack(Numbered(1, reads=reads), Numbered(3, reads=reads))
    assert parity(export_graph(graph, tmp_path / "stack.onnx", example=TRACED), graph) < 1e-4
    assert traced[1:] == list(graph.module.layers)[: 2 if reads else 1]


def test_a_block_in_which_two_layers_are_one_is_traced_apart(tmp_path: Path, traced: list[nn.Module]) -> None:
    class Pair(Layer):
        def __init__(self, *, tied: bool) -> None:
            super().__init__()
            self.down = nn.Linear(WIDTH, WIDTH)
            if tied:
                self.down.weight = self.up.weight

        def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = super().forward(x, y, shift)
            return x + self.down(x), y

    graph = stack(Pair(tied=True), Pair(tied=False))
    assert parity(export_graph(graph, tmp_path / "stack.onnx", example=TRACED), graph) < 1e-4
    assert traced[1:] == list(graph.module.layers)


def test_a_block_that_is_not_quantized_is_traced_apart(tmp_path: Path, traced: list[nn.Module]) -> None:
    torch.manual_seed(0)
    graph = stack(Layer(), Layer(), Layer())
    quantize(graph.module, RECIPES["int8"], calibrate=calibrate, exclude=["layers.1.*"])
    exported = export_graph(graph, tmp_path / "stack.onnx", example=TRACED)
    assert exported.quantizers == 4
    assert traced[1:] == [graph.module.layers[0], graph.module.layers[1]]
    assert parity(exported, graph) < 1e-4


def test_blocks_share_the_lengths_that_they_read(tmp_path: Path) -> None:
    few, many = (export_graph(stack(*(Layer() for _ in range(n))), tmp_path / f"{n}.onnx", example=TRACED) for n in (2, 6))
    assert operators(many, "MatMul") == 3 * operators(few, "MatMul")
    assert operators(many, "Shape") == operators(few, "Shape")


def test_after_an_export_the_blocks_run_in_torch_again(tmp_path: Path) -> None:
    graph = stack(Layer(), Layer())
    inputs = example_inputs(graph, {"tokens": 5}, 2)
    expected = graph.module(*inputs.values())
    export_graph(graph, tmp_path / "stack.onnx", example=TRACED)
    assert torch.equal(graph.module(*inputs.values()), expected)


def test_a_block_that_torch_cannot_export_is_an_error_that_names_the_piece(tmp_path: Path) -> None:
    class Branches(Layer):
        def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (x, y) if x.sum() > 0 else (y, x + shift[:, None])

    with pytest.raises(CompileError, match=r"stack: torch cannot export this graph: .*data-dependent"):
        export_graph(stack(Branches()), tmp_path / "stack.onnx", example=TRACED)


def test_a_block_that_returns_other_shapes_than_it_takes_is_an_error(tmp_path: Path) -> None:
    class Narrows(Layer):
        def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, y[..., :8] + shift[:, None, :8]

    with pytest.raises(CompileError, match=r"stack: .* a block returns FLOAT\[.*,8\] where it has to return FLOAT\[.*,64\], as input y"):
        export_graph(stack(Narrows()), tmp_path / "stack.onnx", example=TRACED)


def test_a_block_that_returns_fewer_tensors_than_it_says_is_an_error(tmp_path: Path) -> None:
    class Single(Layer):
        def forward(self, x: torch.Tensor, y: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return x + y + shift[:, None]

    with pytest.raises(CompileError, match="a block returns 1 tensors, and its `outputs` says 2"):
        export_graph(stack(Single()), tmp_path / "stack.onnx", example=TRACED)


def test_a_block_that_is_called_with_different_shapes_is_an_error(tmp_path: Path) -> None:
    class Twice(Stack):
        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            (layer,) = self.layers
            short = layer(x[:, 1:], x[:, 1:], shift)[0]
            return layer(x, x, shift)[0] + nn.functional.pad(short, (0, 0, 1, 0))

    graph = replace(stack(), module=Twice(Layer()).eval().requires_grad_(False))
    with pytest.raises(CompileError, match=r"stack: .* block layers\.0 is called twice, with tensors of different shapes"):
        export_graph(graph, tmp_path / "stack.onnx", example=TRACED)


@pytest.mark.parametrize("call", [lambda layer, x: layer(x, x, shift=x[:, 0]), lambda layer, x: layer(x, x, None)], ids=["keyword", "None"])
def test_a_block_that_is_called_with_more_than_tensors_by_position_is_an_error(
    tmp_path: Path, call: Callable[[nn.Module, torch.Tensor], tuple[torch.Tensor, ...]]
) -> None:
    class Calls(Stack):
        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            return call(self.layers[0], x)[0] + shift[:, None]

    graph = replace(stack(), module=Calls(Layer()).eval().requires_grad_(False))
    with pytest.raises(CompileError, match=r"stack: .* block layers\.0 is called with other things than tensors by position"):
        export_graph(graph, tmp_path / "stack.onnx", example=TRACED)


def test_torchs_operators_are_read_once() -> None:
    read: Callable[..., object] = _registration.ONNXRegistry.from_torchlib
    assert read(opset_version=OPSET) is read(opset_version=OPSET)
