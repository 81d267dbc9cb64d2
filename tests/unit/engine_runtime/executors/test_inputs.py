from __future__ import annotations

import numpy as np
import pytest

from diffusion_api.engine_manifest import Dtype, Executor, Piece, TensorSpec
from engine_runtime.executors.inputs import PieceInputError, piece_inputs
from engine_runtime.executors.tensorrt import check_profile

PIECE = Piece(
    name="transformer",
    executor=Executor.TENSORRT,
    file="model.plan",
    inputs=(
        TensorSpec(name="hidden_states", dtype=Dtype.FP32, dims=("image_tokens", 16)),
        TensorSpec(name="input_ids", dtype=Dtype.INT64, dims=("text_tokens",)),
    ),
    outputs=(),
    options={"profile.hidden_states": "1x16x16 1x64x16 4x256x16"},
)


def inputs(batch: int = 2, tokens: int = 64) -> dict[str, np.ndarray]:
    return {"hidden_states": np.zeros((batch, tokens, 16), np.float32), "input_ids": np.zeros((batch, 8), np.int64)}


def test_a_piece_gets_its_own_inputs_only():
    assert set(piece_inputs(PIECE, {**inputs(), "temb": np.zeros(1)})) == {"hidden_states", "input_ids"}


def test_ids_of_the_wrong_type_are_named():
    with pytest.raises(PieceInputError, match=r"input_ids is int32 \[2, 8\], should be INT64 \[batch, text_tokens\]"):
        piece_inputs(PIECE, {**inputs(), "input_ids": np.zeros((2, 8), np.int32)})


def test_sizes_inside_the_profile_go():
    check_profile(PIECE, inputs(4, 256))


@pytest.mark.parametrize(("batch", "tokens"), [(5, 64), (1, 8), (1, 512)])
def test_sizes_outside_the_profile_name_its_limits(batch, tokens):
    with pytest.raises(PieceInputError, match=r"the plan takes \[1, 16, 16\] to \[4, 256, 16\]; build for that size"):
        check_profile(PIECE, inputs(batch, tokens))
