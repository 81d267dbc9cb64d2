from __future__ import annotations

from collections.abc import Callable

import pytest
import tensorrt_rtx as trt
import torch

from tests.builder.export.conftest import WIDTH, Case

ExportCase = Callable[..., Case]


def plan_size(path: str, capability: trt.ComputeCapability) -> int:
    """Compile for a GPU that need not be here; 0 where the parser or builder refuses."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(path), [str(parser.get_error(index).desc()) for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 4, WIDTH), (2, 16, WIDTH), (4, 64, WIDTH))
    profile.set_shape("shift", (1, WIDTH), (2, WIDTH), (4, WIDTH))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return 0 if plan is None else plan.nbytes


@pytest.mark.parametrize(
    ("format", "capability"),
    [
        ("none", "SM89"),
        ("int8", "SM89"),
        ("fp8", "SM89"),
        ("fp8-dynamic", "SM89"),
        ("fp8-dynamic", "SM120"),
        ("mxfp8", "SM120"),
        ("nvfp4", "SM120"),
        ("svdquant", "SM120"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_tensorrt_rtx_compiles_every_format(export_case: ExportCase, format: str, capability: str, dtype: torch.dtype) -> None:
    path = export_case(format, dtype=dtype).exported.path
    assert plan_size(str(path), getattr(trt.ComputeCapability, capability)) > 0
