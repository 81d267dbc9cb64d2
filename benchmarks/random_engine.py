"""An engine of a random FLUX.2: a transformer of 46 M parameters, 512×512 pictures of 1,024 tokens, 4 steps, BF16, for the CPU.

    python -m benchmarks.random_engine FOLDER

It exports, compiles and packages as the builder does, but asks for no quality: random weights have none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.cpu_backends import HEAD_WIDTH, HEADS, TEXT_TOKENS, TEXT_WIDTH
from benchmarks.true_size.checkpoint import write_checkpoint
from benchmarks.true_size.sizes import ModelSize
from diffusion_api.accelerator import Accelerator
from diffusion_api.engine_manifest import EngineManifest, Piece
from diffusion_api.model_spec import Sampling, Shape
from diffusion_api.recipe import Precision
from engine_builder.compilers import CompileRequest, compiler_for, profile_of
from engine_builder.export import ExportedGraph, compose, export_graph
from engine_builder.families.base import GraphModule
from engine_builder.families.registry import family_for
from engine_runtime.denoiser import BODY, HEAD, PRELUDE, TRANSFORMER
from engine_runtime.triton.repository import write_model_repository

SIZE = ModelSize(
    blocks=4,
    single_blocks=4,
    heads=HEADS,
    head_dim=HEAD_WIDTH,
    text={
        "vocab_size": 512,
        "hidden_size": TEXT_WIDTH // 3,
        "intermediate_size": TEXT_WIDTH,
        "num_hidden_layers": 27,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
    },
    vae_channels=(16, 32, 32, 32),
    vae_layers=1,
    vae_groups=8,
)
SIDE = 512
TRACED = Shape(width=96, height=80)
"""Traced at odd lengths, so that no axis is taken for a constant or for another axis."""
CPU = Accelerator(product="CPU")


def build(folder: Path) -> Path:
    """Build the engine and return its model repository."""
    checkpoint = write_checkpoint(SIZE, folder)
    family = family_for(checkpoint)
    sampling = Sampling(max_sequence_length=TEXT_TOKENS)
    manifest = family.manifest(checkpoint, sampling, [Shape(width=SIDE, height=SIDE)], 8)
    example = family.manifest(checkpoint, sampling, [TRACED], 2).shapes[0].dims
    graphs = family.graphs(family.load(checkpoint, torch.float32))
    exported = export_all(graphs, example, folder / "graphs")
    pieces = {name: compiled(graph, manifest, folder / "compiled" / name) for name, graph in exported.items()}
    write_model_repository(
        folder / "model_repository",
        manifest=manifest.model_copy(update={"pieces": pieces}),
        compiled={name: folder / "compiled" / name for name in pieces},
        constants={name: tensor.numpy() for name, tensor in family.constants(manifest).items()},
        tokenizer_json=(checkpoint / "tokenizer/tokenizer.json").read_text(encoding="utf-8"),
    )
    return folder / "model_repository"


Exported = tuple[ExportedGraph, GraphModule]


def export_all(graphs: tuple[GraphModule, ...], example: Mapping[str, int], folder: Path) -> dict[str, Exported]:
    """Export each graph; the transformer's three become one."""
    done = {graph.name: (export_graph(graph, folder / f"{graph.name}.onnx", example=example), graph) for graph in graphs}
    parts = [done.pop(name) for name in (PRELUDE, BODY, HEAD)]
    made = {spec.name for _, graph in parts for spec in graph.outputs}
    inputs = tuple({spec.name: spec for _, graph in parts for spec in graph.inputs if spec.name not in made}.values())
    head = parts[-1][1]
    whole = compose(TRANSFORMER, [part for part, _ in parts], folder / f"{TRANSFORMER}.onnx", inputs=inputs, outputs=head.outputs)
    return {**done, TRANSFORMER: (whole, GraphModule(TRANSFORMER, TRANSFORMER, head.module, inputs, head.outputs))}


def compiled(exported: Exported, manifest: EngineManifest, folder: Path) -> Piece:
    """Compile a graph into a folder and return its piece."""
    graph, module = exported
    folder.mkdir(parents=True)
    profile = profile_of([plan.dims for plan in manifest.shapes], manifest.max_batch_size)
    request = CompileRequest(module.name, graph.path, module.inputs, module.outputs, profile, Precision.BF16)
    return compiler_for(CPU).compile(request, folder).piece


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
