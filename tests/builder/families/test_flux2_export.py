"""Every graph is exportable with dynamic axes, and shares its layers with the component that is quantized."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.model_spec import Sampling, Shape
from engine_builder.families.base import GraphModule
from engine_builder.families.flux2.text_encoder import TextEncoder
from tests.builder.families.generate import Generator
from tests.builder.tiny_models import TEXT_WIDTH

TRACED = {"image_tokens": 6, "text_tokens": 5, "tokens": 11, "latent_height": 2, "latent_width": 3}
OTHER = {"image_tokens": 12, "text_tokens": 9, "tokens": 21, "latent_height": 4, "latent_width": 3}
GRAPHS = ("transformer_prelude", "transformer_body", "transformer_head", "vae_decoder")


@pytest.fixture(scope="module")
def klein(tiny_klein: Path) -> Generator:
    return Generator(tiny_klein, Sampling(max_sequence_length=64), Shape(width=16, height=16))


@pytest.fixture(scope="module")
def dev(tiny_dev: Path) -> Generator:
    return Generator(tiny_dev, Sampling(max_sequence_length=200), Shape(width=16, height=16))


def inputs(graph: GraphModule, dims: dict[str, int], batch: int) -> tuple[torch.Tensor, ...]:
    shapes = [(batch, *(dims[axis] if isinstance(axis, str) else axis for axis in spec.dims)) for spec in graph.inputs]
    random = torch.Generator().manual_seed(1)
    return tuple(
        torch.ones(shape, dtype=torch.int64) if spec.dtype is Dtype.INT64 else torch.rand(shape, generator=random)
        for spec, shape in zip(graph.inputs, shapes, strict=True)
    )


def as_tuple(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def check_exported(graph: GraphModule) -> None:
    axes = [{0, *(i for i, axis in enumerate(spec.dims, start=1) if isinstance(axis, str))} for spec in graph.inputs]
    dynamic = tuple(dict.fromkeys(of_input, torch.export.Dim.DYNAMIC) for of_input in axes)
    exported = torch.export.export(graph.module, inputs(graph, TRACED, 2), dynamic_shapes=dynamic, strict=False)
    values = [node.meta.get("val") for node in exported.graph.nodes]
    assert not any(getattr(value, "dtype", None) is torch.float64 for value in values)
    assert not any("einsum" in str(node.target) for node in exported.graph.nodes)
    arguments = inputs(graph, OTHER, 3)
    with torch.no_grad():
        expected, actual = as_tuple(graph.module(*arguments)), as_tuple(exported.module()(*arguments))
    for spec, ours, theirs in zip(graph.outputs, actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert len(ours.shape) == 1 + len(spec.dims)
        assert all(axis == size for axis, size in zip(spec.dims, ours.shape[1:], strict=True) if isinstance(axis, int))


@pytest.mark.parametrize("name", GRAPHS)
def test_klein_graphs_export_with_dynamic_axes(klein: Generator, name: str) -> None:
    check_exported(klein.graphs[name])


def test_the_text_encoder_exports_with_dynamic_axes(klein: Generator) -> None:
    graph = klein.graphs["text_encoder"]
    layers = (1, 2)  # All of them take twenty seconds to trace.
    output = TensorSpec(name="prompt_embeds", dtype=Dtype.FP32, dims=("text_tokens", len(layers) * TEXT_WIDTH))
    shallow = TextEncoder(klein.model.components["textEncoder"].model, layers)
    check_exported(replace(graph, module=shallow.eval(), outputs=(output,)))


def test_devs_prelude_exports_with_guidance(dev: Generator) -> None:
    assert [spec.name for spec in dev.graphs["transformer_prelude"].inputs] == [
        "hidden_states",
        "encoder_hidden_states",
        "timestep",
        "guidance",
    ]
    check_exported(dev.graphs["transformer_prelude"])


def test_bf16_body_exports(tiny_klein: Path) -> None:
    generator = Generator(tiny_klein, Sampling(max_sequence_length=64), Shape(width=16, height=16), torch.bfloat16)
    graph = generator.graphs["transformer_body"]
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in graph.inputs)
    exported = torch.export.export(graph.module, inputs(graph, TRACED, 2), dynamic_shapes=dynamic, strict=False)
    cosines = [node.meta["val"].dtype for node in exported.graph.nodes if "cos" in str(node.target)]
    assert cosines
    assert set(cosines) == {torch.float32}


def test_a_layer_changed_in_the_component_changes_its_graph(klein: Generator) -> None:
    for graph, component, layer in (
        ("transformer_body", "transformer", "single_transformer_blocks.0.attn.to_out"),
        ("vae_decoder", "vae", "decoder.conv_out"),
        ("text_encoder", "textEncoder", "model.layers.3.mlp.up_proj"),
    ):
        changed = klein.model.components[component].get_submodule(layer)
        assert any(module is changed for module in klein.graphs[graph].module.modules())


def test_quantizing_the_transformer_in_place_quantizes_the_graphs(tiny_klein: Path) -> None:
    import modelopt.torch.quantization as mtq  # noqa: PLC0415 - takes seconds

    generator = Generator(tiny_klein, Sampling(max_sequence_length=64), Shape(width=16, height=16))
    graph = generator.graphs["transformer_body"]
    arguments = inputs(graph, TRACED, 2)
    with torch.no_grad():
        before = graph.module(*arguments)
        mtq.quantize(
            generator.model.components["transformer"],
            {"quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4, "axis": 0}}], "algorithm": "max"},
            forward_loop=lambda _: graph.module(*arguments),
        )
        after = graph.module(*arguments)
    assert 0 < (before - after).norm() / before.norm() < 0.3
