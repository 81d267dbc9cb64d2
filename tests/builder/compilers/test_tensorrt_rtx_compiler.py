"""TensorRT-RTX compiles for its GPUs on any machine, so NVIDIA's own parser and builder run here."""

from __future__ import annotations

import errno
import io

import onnx
import pytest
from onnx import TensorProto, helper

from diffusion_api.accelerator import Accelerator
from diffusion_api.accelerator import Compiler as CompilerName
from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.optimization import QuantizationFormat
from engine_builder.compilers import compiler_for, plan_file, tensorrt
from engine_builder.compilers.tensorrt import rtx_capabilities
from engine_builder.errors import CompileError, UnsupportedTargetError
from engine_runtime.errors import PieceError
from engine_runtime.executors import load_runner
from engine_runtime.executors.tensorrt_library import load_library

from .conftest import ADA, BLACKWELL, INPUTS, WIDTH, linear_graph


@pytest.mark.parametrize("accelerator", [ADA, BLACKWELL])
def test_a_graph_compiles_to_a_plan(accelerator, request_for, tmp_path):
    compiled = compiler_for(accelerator).compile(request_for(), tmp_path)
    assert compiled.file.name == "model.plan"
    assert compiled.size_bytes == compiled.file.stat().st_size > 4 * WIDTH * WIDTH
    assert compiled.layers >= 4
    assert not list(tmp_path.glob("*.partial"))


def test_what_a_plan_tells_only_on_a_gpu_is_recorded(request_for, tmp_path):
    options = compiler_for(ADA).compile(request_for(), tmp_path).piece.options
    assert options == {
        "library": "tensorrt_rtx",
        "version": compiler_for(ADA).version(),
        "computeCapability": "8.9",
        "profile.tokens": "1x16x32 1x16x32 4x64x32",
        "profile.shift": "1x32 1x32 4x32",
    }


def test_a_plan_is_not_run_without_a_gpu(request_for, tmp_path):
    compiled = compiler_for(ADA).compile(request_for(), tmp_path)
    with pytest.raises(PieceError, match=r"TensorRT-RTX plan for compute capability 8\.9, and this machine has no GPU"):
        load_runner(compiled.folder, compiled.piece)


def test_an_unknown_operator_is_a_compile_error_that_names_the_node(request_for, tmp_path):
    with pytest.raises(CompileError, match=r"TensorRTRTX cannot read linear \(graph.onnx\): node last \(op Frobnicate\)"):
        compiler_for(ADA).compile(request_for(linear_graph("Frobnicate")), tmp_path)


def test_a_file_that_is_no_onnx_is_a_compile_error(request_for, tmp_path):
    request = request_for()
    request.onnx.write_bytes(b"no graph at all")
    with pytest.raises(CompileError, match="cannot read linear"):
        compiler_for(ADA).compile(request, tmp_path)
    assert not (tmp_path / "model.plan").exists()


def test_types_that_the_family_did_not_promise_are_a_compile_error(request_for, tmp_path):
    other = (INPUTS[0], TensorSpec(name="shift", dtype=Dtype.BF16, dims=(WIDTH,)))
    with pytest.raises(CompileError, match=r"inputs are shift FLOAT, tokens FLOAT, the family's shift BF16"):
        compiler_for(ADA).compile(request_for(inputs=other), tmp_path)


def test_sizes_that_the_graph_cannot_take_are_a_compile_error_with_the_sizes(request_for, tmp_path):
    model = linear_graph()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(CompileError, match=r"profile\.tokens|1x16x32"):
        compiler_for(ADA).compile(request_for(model), tmp_path)


def test_a_plan_that_does_not_fit_on_the_disk_is_an_error_of_the_disk_and_leaves_nothing(request_for, tmp_path, monkeypatch):
    class FullDisk(io.BytesIO):
        def write(self, data) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plan_file.Path, "open", lambda path, mode: FullDisk())
    with pytest.raises(OSError, match="No space left"):
        compiler_for(ADA).compile(request_for(), tmp_path)
    assert not (tmp_path / "model.plan").exists()


def test_attention_without_a_fused_kernel_is_compiled(request_for, tmp_path):
    """A VAE attends with a single head of 512 channels; fused kernels end at 256."""
    names, dims = ("query", "key", "value"), (1, "image_tokens", 512)
    specs = tuple(TensorSpec(name=name, dtype=Dtype.BF16, dims=dims) for name in (*names, "attended"))
    values = [helper.make_tensor_value_info(spec.name, TensorProto.BFLOAT16, ["batch", *dims]) for spec in specs]
    graph = helper.make_graph([helper.make_node("Attention", names, ["attended"])], "attention", values[:3], values[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    compiled = compiler_for(BLACKWELL).compile(request_for(model, inputs=specs[:3], outputs=specs[3:]), tmp_path)
    assert compiled.size_bytes > 0


def test_a_later_build_hears_its_own_messages(request_for, tmp_path):
    with pytest.raises(CompileError):
        compiler_for(ADA).compile(request_for(linear_graph("Frobnicate")), tmp_path)
    assert not any("Frobnicate" in warning for warning in compiler_for(ADA).compile(request_for(), tmp_path).warnings)


def test_what_is_as_it_should_be_is_no_warning(request_for, tmp_path):
    """The parser warns of every INT64 input, such as a text encoder's, that its binding must be INT64."""
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "image_tokens"]) for name in ("ids", "same")]
    graph = helper.make_graph([helper.make_node("Add", ["ids", "ids"], ["same"])], "ids", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    specs = [(TensorSpec(name=name, dtype=Dtype.INT64, dims=("image_tokens",)),) for name in ("ids", "same")]
    assert compiler_for(ADA).compile(request_for(model, inputs=specs[0], outputs=specs[1]), tmp_path).warnings == ()


def test_a_true_warning_is_kept(request_for, tmp_path, monkeypatch):
    library = load_library("tensorrt_rtx")
    check = tensorrt._check_network

    def warn(*arguments) -> None:
        library.logger.log(library.module.ILogger.WARNING, "weights are subnormal")
        check(*arguments)

    monkeypatch.setattr(tensorrt, "_check_network", warn)
    assert compiler_for(ADA).compile(request_for(), tmp_path).warnings == ("weights are subnormal",)


@pytest.mark.parametrize("wanted", [QuantizationFormat.NVFP4, QuantizationFormat.MXFP8])
def test_formats_without_kernels_are_refused_before_anything_is_built(wanted):
    with pytest.raises(UnsupportedTargetError, match=rf"NVIDIA-L4 .*8\.9.* no kernels for {wanted.value}; .* one of None, INT8, FP8"):
        compiler_for(ADA).check(ADA, [QuantizationFormat.FP8, wanted])


def test_blackwell_takes_every_format():
    compiler_for(BLACKWELL).check(BLACKWELL, list(QuantizationFormat))


def test_a_gpu_that_tensorrt_rtx_has_no_code_for_is_refused():
    hopper = Accelerator(product="NVIDIA-H200", compiler=CompilerName.TENSORRT_RTX)
    with pytest.raises(
        UnsupportedTargetError, match=r"compiles for compute capabilities 7\.5, .*12\.0.*; set spec.accelerator.compiler to TensorRT$"
    ):
        compiler_for(hopper).check(hopper, [])


def test_capabilities_are_read_from_the_library():
    assert {"8.9", "12.0"} <= set(rtx_capabilities(load_library("tensorrt_rtx")))


def test_the_version_is_full():
    assert compiler_for(ADA).version().count(".") == 3
