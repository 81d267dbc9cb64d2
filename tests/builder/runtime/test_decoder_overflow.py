"""A FLUX.2 decoder that overflows inside rounds NaN to 8 bit: what is left of it must be told from a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_api.accelerator import Accelerator
from diffusion_api.recipe import Precision
from engine_builder.compilers import CompileRequest, compiler_for, profile_of
from engine_builder.export import export_graph
from engine_builder.families.registry import family_for
from engine_runtime.errors import DegenerateOutputError
from engine_runtime.executors import load_runner
from engine_runtime.output_checks import check_outputs
from tests.builder.tiny_models import CHANNELS, flux2_klein

AXES = {"latent_height": 4, "latent_width": 6}
LARGEST = 3e38
"""Of FP32 and BF16, nearly."""


@pytest.fixture(scope="module")
def decode(tmp_path_factory):
    """Return a compiled decoder of random weights."""
    folder = tmp_path_factory.mktemp("decoder")
    family = family_for(flux2_klein(folder / "checkpoint"))
    model = family.load(folder / "checkpoint", torch.float32)
    (graph,) = (graph for graph in family.graphs(model) if graph.name == "vae_decoder")
    exported = export_graph(graph, folder / "vae.onnx", example={"latent_height": 2, "latent_width": 3})
    request = CompileRequest(graph.name, exported.path, graph.inputs, graph.outputs, profile_of([AXES], 2), Precision.BF16)
    (folder / "compiled").mkdir()
    compiled = compiler_for(Accelerator(product="CPU")).compile(request, folder / "compiled")
    runner = load_runner(folder / "compiled", compiled.piece)
    return lambda latents: runner({graph.inputs[0].name: latents})


def test_a_decoder_that_overflows_in_one_place_is_told_by_its_whole_picture(decode):
    latents = np.zeros((2, 4, 6, CHANNELS), np.float32)
    latents[1, 0, 0] = LARGEST  # Finite, and one corner of one picture.
    (pictures,) = decode(latents).values()
    with pytest.raises(DegenerateOutputError, match="request 1 of the batch"):
        check_outputs({"image": pictures})
