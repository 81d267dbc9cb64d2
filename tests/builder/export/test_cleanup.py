from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import tape

from engine_builder.export.cleanup import drop_empty_squeezes


def squeezing_model(length: int | str) -> ir.Model:
    build = tape.Tape()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", length]))
    axes = build.initializer(ir.tensor(np.array([1], np.int64), name="axes"))
    y = build.op("Squeeze", [x, axes])
    graph = ir.Graph([x], [y], nodes=build.nodes, initializers=build.initializers, opset_imports={"": 23})
    return ir.Model(graph, ir_version=10)


def test_a_squeeze_of_a_long_axis_is_left_out_as_torch_means_it() -> None:
    model = squeezing_model(16)
    assert drop_empty_squeezes(model) == 1
    assert model.graph.outputs[0] is model.graph.inputs[0]


def test_a_squeeze_of_one_and_of_an_unknown_axis_stay() -> None:
    assert drop_empty_squeezes(squeezing_model(1)) == 0
    assert drop_empty_squeezes(squeezing_model("tokens")) == 0
