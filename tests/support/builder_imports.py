"""What a build imports, and works out once, as it goes on; for processes that fork from one that has it.

The forks share its memory as long as nobody writes there, which the garbage collector would.
"""

import gc
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers
    import torch
    import transformers
    from tqdm import tqdm

    from diffusion_api.engine_manifest import Dtype, TensorSpec
    from engine_builder.__main__ import main
    from engine_builder.families.base import GraphModule
    from engine_builder.families.flux2 import graphs, load
    from engine_builder.workflow import (
        checkpoint_stage,
        compilation,
        exporting,
        quantization_stage,
        reference_stage,
        search,
        simulation,
        verification,
    )

IMPORTED = (main, graphs, load, checkpoint_stage, compilation, quantization_stage, reference_stage, search, simulation, verification)
# Both import their classes when they are asked for.
LAZY = (diffusers.Flux2KleinPipeline, transformers.Qwen3ForCausalLM)
_OF_ONNX_RUNTIME = 1
"""It starts a thread as it is imported, and its sessions work in forks that lack it."""
tqdm.monitor_interval = 0  # Else torch's progress bars start a thread.


def _export_once() -> None:
    """Let torch's exporter read and import what it needs for its first graph."""
    specs = [TensorSpec(name=name, dtype=Dtype.FP32, dims=("tokens", 4)) for name in ("x", "y")]
    graph = GraphModule("layer", "transformer", torch.nn.Linear(4, 4).eval().requires_grad_(False), (specs[0],), (specs[1],))
    with TemporaryDirectory() as folder:
        exporting.trace_graph(graph, {"tokens": 3}).write(Path(folder) / "layer.onnx")


_export_once()
_threads = len(list(Path("/proc/self/task").iterdir()))
assert _threads <= 1 + _OF_ONNX_RUNTIME, f"a fork would lack {_threads - 1} threads, some of which may hold locks"
gc.collect()
gc.freeze()
