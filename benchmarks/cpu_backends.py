"""What the CPU runs fastest: a random FLUX.2 of 46 M parameters, 1,024 image and 64 text tokens, one denoising step; prints a table.

Usage: python -m benchmarks.cpu_backends [--threads 2] [--repeats 7]. Every variant runs in turn, so that all meet the same load of the
machine; `CPU ms` counts only the time that this process computed. `accuracy` is the output's signal-to-noise ratio against diffusers in
FP32. The weights are random, so it says what rounding costs and nothing of pictures.

AOTInductor compiles our own graph (the serving pieces as one), for the sizes measured; ONNX is no part of it. Not measured: INT8 through
Inductor. Its quantizer for x86, which writes the pattern that Inductor turns into integer kernels, has left torch for torchao, and the
builder quantizes with ModelOpt, whose operators Inductor does not know.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.utils import logging as diffusers_logging
from torch import nn

from diffusion_api.accelerator import Accelerator
from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.optimization import QuantizationAlgorithm, QuantizationFormat, ScaleMode
from diffusion_api.recipe import ComponentRecipe, Precision
from engine_builder.compilers import CompileRequest, compiler_for, profile_of
from engine_builder.export import export_graph
from engine_builder.families.base import GraphModule
from engine_builder.families.flux2.transformer import Body, Head, Prelude
from engine_builder.quantization import quantize
from engine_builder.workflow.exporting import cast_weights
from engine_runtime.executors import OpenVinoRunner

IMAGE_SIDE, TEXT_TOKENS, HEADS, HEAD_WIDTH, CHANNELS, TEXT_WIDTH = 32, 64, 8, 64, 128, 768
SIZES = {"image_tokens": IMAGE_SIDE**2, "text_tokens": TEXT_TOKENS, "tokens": IMAGE_SIDE**2 + TEXT_TOKENS}
TRACED = {"image_tokens": 6, "text_tokens": 5, "tokens": 11}
SENSITIVE = ("*x_embedder*", "*context_embedder*", "*time_guidance_embed*", "*modulation*", "*norm*", "proj_out*")
INT8 = ComponentRecipe(format=QuantizationFormat.INT8, mode=ScaleMode.STATIC, algorithm=QuantizationAlgorithm.SMOOTH_QUANT)
BASELINES = ("diffusers, eager FP32", "diffusers, eager BF16", "diffusers, torch.compile BF16")

Step = Callable[[], torch.Tensor]
Inputs = Mapping[str, torch.Tensor]


class Denoiser(nn.Module):
    """The three pieces as one graph, as they are served without a step cache."""

    def __init__(self, transformer: Flux2Transformer2DModel) -> None:
        super().__init__()
        self.prelude, self.body, self.head = Prelude(transformer), Body(transformer), Head(transformer)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, timestep: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity, as the served transformer does."""
        x, ctx, temb, mod_img, mod_txt, mod_single, _ = self.prelude(hidden_states, encoder_hidden_states, timestep)
        sample: torch.Tensor = self.head(self.body(x, ctx, mod_img, mod_txt, mod_single, position_ids), temb)
        return sample


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=7)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    diffusers_logging.set_verbosity_error()
    inputs = step_inputs()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        steps = {**diffusers_steps(inputs), **inductor_step(inputs, Path(folder)), **openvino_steps(inputs, Path(folder), options.threads)}
        expected = steps[BASELINES[0]]()
        accuracy = {name: signal_to_noise(step(), expected) for name, step in steps.items()}  # The first call also compiles and warms up.
        wall, cpu = interleaved(steps, options.repeats)
    best = min(wall[name] for name in BASELINES)
    print(f"{options.threads} thread(s), median of {options.repeats}, {torch.backends.cpu.get_cpu_capability()}\n")
    print(f"{'':34}{'ms':>8}{'CPU ms':>9}{'speed-up':>10}{'accuracy':>12}")
    for name in steps:
        print(f"{name:34}{wall[name]:8.0f}{cpu[name]:9.0f}{best / wall[name]:9.2f}×{accuracy[name]:9.1f} dB")
    print("\nSpeed-up is over the fastest of diffusers' three.")


def transformer() -> Flux2Transformer2DModel:
    """Return the random model, equal at each call."""
    torch.manual_seed(0)
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=CHANNELS,
        num_layers=4,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=TEXT_WIDTH,
        timestep_guidance_channels=256,
        axes_dims_rope=[HEAD_WIDTH // 4] * 4,
        guidance_embeds=False,
    ).eval()


def step_inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random inputs at real positions, batch 1."""
    random = torch.Generator().manual_seed(seed)
    zero, side = torch.arange(1), torch.arange(IMAGE_SIDE)
    text = torch.cartesian_prod(zero, zero, zero, torch.arange(TEXT_TOKENS))
    return {
        "hidden_states": torch.randn(1, IMAGE_SIDE**2, CHANNELS, generator=random),
        "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=random),
        "timestep": torch.tensor([0.5]),
        "position_ids": torch.cat([text, torch.cartesian_prod(zero, side, side, zero)]).float()[None],
    }


def diffusers_steps(inputs: Inputs) -> dict[str, Step]:
    """Return diffusers' own model, as a user would run it."""
    plain = transformer()
    cast = copy.deepcopy(plain).to(torch.bfloat16)
    models = (plain, cast, torch.compile(cast))
    return {name: _diffusers_step(model, dtype, inputs) for name, model, dtype in zip(BASELINES, models, _BASELINE_DTYPES, strict=True)}


_BASELINE_DTYPES = (torch.float32, torch.bfloat16, torch.bfloat16)


def _diffusers_step(model: Callable[..., tuple[torch.Tensor]], dtype: torch.dtype, inputs: Inputs) -> Step:
    ids = inputs["position_ids"][0]
    arguments = {name: inputs[name].to(dtype) for name in ("hidden_states", "encoder_hidden_states", "timestep")}

    def step() -> torch.Tensor:
        return model(**arguments, txt_ids=ids[:TEXT_TOKENS], img_ids=ids[TEXT_TOKENS:], return_dict=False)[0].float()

    return step


def inductor_step(inputs: Inputs, folder: Path) -> dict[str, Step]:
    """Return AOTInductor's library of our graph, in BF16 as the engine has it: outputs and positions stay FP32."""
    graph = denoiser_graph(ComponentRecipe())
    cast_weights(graph, torch.bfloat16)
    arguments = tuple(inputs[spec.name] for spec in graph.inputs)
    program = torch.export.export(graph.module, arguments, strict=False)
    # Frozen weights are packed for oneDNN's kernels.
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(folder / "denoiser.pt2"), inductor_configs={"freezing": True}
    )
    run = torch._inductor.aoti_load_package(package)
    return {"AOTInductor BF16": lambda: run(*arguments)}


def openvino_steps(inputs: Inputs, folder: Path, threads: int) -> dict[str, Step]:
    """Return our engines: unquantized and INT8, each with FP32 and BF16 for the rest."""
    steps: dict[str, Step] = {}
    for label, recipe in (("", ComponentRecipe()), ("INT8 + ", INT8)):
        graph = denoiser_graph(recipe)
        exported = export_graph(graph, folder / f"{label or 'plain'}.onnx".replace(" + ", ""), example=TRACED)
        for precision in (Precision.FP32, Precision.BF16):
            steps[f"OpenVINO, {label}{precision}"] = _openvino_step(graph, exported.path, precision, inputs, threads)
    return steps


def denoiser_graph(recipe: ComponentRecipe) -> GraphModule:
    """Return the model as one piece, quantized by a recipe and calibrated on two inputs."""
    model = transformer()
    denoiser = Denoiser(model).eval()
    quantize(model, recipe, calibrate=lambda _: _calibrate(denoiser), exclude=SENSITIVE)

    def spec(name: str, *dims: int | str) -> TensorSpec:
        return TensorSpec(name=name, dtype=Dtype.FP32, dims=dims)

    return GraphModule(
        name="transformer",
        component="transformer",
        module=denoiser,
        inputs=(
            spec("hidden_states", "image_tokens", CHANNELS),
            spec("encoder_hidden_states", "text_tokens", TEXT_WIDTH),
            spec("timestep"),
            spec("position_ids", "tokens", 4),
        ),
        outputs=(spec("sample", "image_tokens", CHANNELS),),
    )


def _calibrate(denoiser: nn.Module) -> None:
    for seed in (1, 2):
        denoiser(**step_inputs(seed))


def _openvino_step(graph: GraphModule, onnx: Path, precision: Precision, inputs: Inputs, threads: int) -> Step:
    request = CompileRequest(graph.name, onnx, graph.inputs, graph.outputs, profile_of([SIZES], 1), precision)
    folder = onnx.parent / f"{onnx.stem}-{precision}"
    folder.mkdir()
    compiled = compiler_for(Accelerator(product="CPU")).compile(request, folder)
    runner = OpenVinoRunner(folder, compiled.piece, threads=threads)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return lambda: torch.from_numpy(runner(arrays)["sample"])


def signal_to_noise(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return 20·log10(‖expected‖₂ / ‖actual − expected‖₂) in dB; infinite where they are equal."""
    noise = (actual - expected).norm().item()
    return 20 * math.log10(expected.norm().item() / noise) if noise else math.inf


def interleaved(steps: Mapping[str, Step], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median wall-clock and CPU time of each step, in milliseconds."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            started, computed = time.perf_counter(), time.process_time()
            step()
            wall[name].append((time.perf_counter() - started) * 1000)
            cpu[name].append((time.process_time() - computed) * 1000)
    return _medians(wall), _medians(cpu)


def _medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
