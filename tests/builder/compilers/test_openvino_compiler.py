from __future__ import annotations

import threading

import numpy as np
import openvino
import pytest
from onnx import helper, numpy_helper

from diffusion_api.engine_manifest import Dtype, TensorSpec
from diffusion_api.optimization import QuantizationFormat
from diffusion_api.recipe import Precision
from engine_builder.compilers import compiler_for
from engine_builder.compilers.openvino import precision_hint
from engine_builder.errors import CompileError, UnsupportedTargetError
from engine_runtime.errors import EngineFilesError
from engine_runtime.executors import load_runner
from engine_runtime.executors.inputs import PieceInputError

from .conftest import ADA, CPU, INPUTS, OUTPUTS, WIDTH, expected, linear_graph


def arrays(batch: int = 2, tokens: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "tokens": random.normal(size=(batch, tokens, WIDTH)).astype(np.float32),
        "shift": random.normal(size=(batch, WIDTH)).astype(np.float32),
    }


@pytest.fixture
def runner(request_for, tmp_path):
    compiled = compiler_for(CPU).compile(request_for(), tmp_path)
    return load_runner(compiled.folder, compiled.piece)


def test_a_compiled_piece_computes_what_the_graph_does_at_every_size(runner):
    for batch, tokens in ((1, 16), (4, 64), (3, 20)):
        inputs = arrays(batch, tokens)
        np.testing.assert_allclose(runner(inputs)["sample"], expected(**inputs), rtol=1e-5, atol=1e-5)


def test_equal_inputs_give_equal_bytes(runner):
    assert runner(arrays())["sample"].tobytes() == runner(arrays())["sample"].tobytes()


def test_an_output_is_not_overwritten_by_the_next_call(runner):
    first = runner(arrays(seed=1))["sample"]
    kept = first.copy()
    runner(arrays(seed=2))
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_mix_their_inputs(runner):
    results: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        for _ in range(10):
            results[seed] = runner(arrays(seed=seed))["sample"]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, result in results.items():
        np.testing.assert_allclose(result, expected(**arrays(seed=seed)), rtol=1e-5, atol=1e-5)


def test_more_inputs_than_the_piece_takes_are_left_aside(runner):
    inputs = arrays()
    np.testing.assert_allclose(runner({**inputs, "other": inputs["shift"]})["sample"], expected(**inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tokens": np.zeros((2, 16, 8), np.float32)},
            r"linear: input tokens is float32 \[2, 16, 8\], should be FP32 \[batch, image_tokens, 32\]",
        ),
        ({"tokens": np.zeros((16, WIDTH), np.float32)}, "input tokens is float32"),
        ({"tokens": np.zeros((2, 16, WIDTH), np.float64)}, "input tokens is float64"),
        ({"shift": np.zeros((3, WIDTH), np.float32)}, "batch is 3 here but 2 in tokens"),
    ],
)
def test_a_wrong_input_is_named_with_what_it_should_be(runner, changes, message):
    with pytest.raises(PieceInputError, match=message):
        runner({**arrays(), **changes})


def test_a_missing_input_is_named(runner):
    with pytest.raises(PieceInputError, match="linear also needs shift"):
        runner({"tokens": arrays()["tokens"]})


def test_one_output_size_makes_the_axis_a_constant(request_for, tmp_path):
    compiled = compiler_for(CPU).compile(request_for(sizes=(16,)), tmp_path)
    shape = openvino.Core().read_model(compiled.file).input("tokens").get_partial_shape()
    assert str(shape) == "[1..4,16,32]"


def test_weights_keep_their_bits(request_for, tmp_path):
    compiled = compiler_for(CPU).compile(request_for(), tmp_path)
    weights = (tmp_path / "model.bin").stat().st_size
    assert compiled.size_bytes == weights >= 4 * WIDTH * WIDTH
    assert compiled.layers > 4


def test_what_a_quantized_graph_leaves_unquantized_is_stored_in_16_bits(request_for, tmp_path):
    model = linear_graph()
    scale = [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    model.graph.initializer.extend(scale)
    codes = helper.make_node("QuantizeLinear", ["tokens", "scale", "zero"], ["codes"])
    rounded = helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["rounded"])
    model.graph.node[0].input[0] = "rounded"
    nodes = [codes, rounded, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    results, sizes = [], []
    for precision in (Precision.FP32, Precision.BF16):
        folder = tmp_path / precision.value
        folder.mkdir()
        compiled = compiler_for(CPU).compile(request_for(model, precision=precision), folder)
        sizes.append(compiled.size_bytes)
        piece = compiled.piece.model_copy(update={"options": {**compiled.piece.options, "INFERENCE_PRECISION_HINT": "f32"}})
        results.append(load_runner(folder, piece)(arrays())["sample"])
    assert sizes[0] - sizes[1] == 2 * WIDTH * WIDTH
    np.testing.assert_allclose(results[1], results[0], rtol=1e-2, atol=1e-2)


def test_bf16_is_asked_for_only_where_the_cpu_computes_it():
    assert precision_hint(Precision.BF16, ("BF16", "FP32", "INT8")) == "bf16"
    assert precision_hint(Precision.BF16, ("FP32", "INT8")) == "f32"
    assert precision_hint(Precision.FP32, ("BF16", "FP32", "INT8")) == "f32"


def test_an_unknown_operator_is_a_compile_error_that_names_it(request_for, tmp_path):
    with pytest.raises(CompileError, match=r"cannot read linear.*Frobnicate"):
        compiler_for(CPU).compile(request_for(linear_graph("Frobnicate")), tmp_path)


def test_a_graph_with_other_names_is_a_compile_error(request_for, tmp_path):
    other = (INPUTS[0], TensorSpec(name="scale", dtype=Dtype.FP32, dims=(WIDTH,)))
    with pytest.raises(CompileError, match=r"the graph's inputs are \['shift', 'tokens'\], the family's \['scale', 'tokens'\]"):
        compiler_for(CPU).compile(request_for(inputs=other), tmp_path)


def test_every_format_goes_on_a_cpu_for_it_only_reproduces_the_arithmetic():
    compiler_for(CPU).check(CPU, list(QuantizationFormat))


def test_a_gpu_is_refused():
    with pytest.raises(UnsupportedTargetError, match=r"leave spec\.accelerator\.compiler out"):
        compiler_for(CPU).check(ADA, [])


def test_the_version_is_full():
    assert compiler_for(CPU).version().count(".") >= 2


def test_a_missing_file_says_to_build_again(request_for, tmp_path):
    compiled = compiler_for(CPU).compile(request_for(), tmp_path)
    compiled.file.unlink()
    with pytest.raises(EngineFilesError, match="build the engine again"):
        load_runner(compiled.folder, compiled.piece)


def test_outputs_are_the_pieces_own(runner):
    assert set(runner(arrays())) == {spec.name for spec in OUTPUTS}
