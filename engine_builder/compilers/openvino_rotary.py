"""Rewrites rotary embeddings of neighbouring channels so that OpenVINO's CPU plugin runs them by its fast kernels.

Taking every second channel apart and putting them together again are a Slice and a Concat over an axis of two, which the plugin (seen
with 2026.4) runs by reference kernels, one element at a time: a quarter of an INT8 transformer's time. With P the matrix that turns
each pair (a, b) into (−b, a), the same numbers are `x·cos + (x P)·sin`, whose product is a matrix multiplication; as every column of P
holds a single ±1, it rounds nothing. OpenVINO's own fusion of this pattern wants other axes than our graphs have.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

PAIR = 2


@dataclass(frozen=True)
class Rotary:
    """`Reshape` of one rotated tensor, and the outputs that it is computed from."""

    result: Any
    """The node whose output holds the rotated channels, [..., 2n]."""
    x: Any
    """The output that is rotated, [..., 2n]."""
    cos: Any
    """Cosines, [..., n]."""
    sin: Any
    """Sines, [..., n]."""


def rewrite_rotary(model: Any) -> int:
    """Rewrite every rotary embedding of an OpenVINO model in place and return their number."""
    found = [rotary for node in model.get_ordered_ops() if (rotary := match_rotary(node)) is not None]
    for rotary in found:
        _replace(rotary)
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def match_rotary(node: Any) -> Rotary | None:
    """Return the parts of a rotary embedding that ends in `node`, or None where none does.

    The pattern is what `stack([even·cos − odd·sin, odd·cos + even·sin], −1).flatten(−2)` becomes, `even` and `odd` taken from a reshape
    of x to pairs.
    """
    if _type(node) != "Reshape":
        return None
    concat = _source(node, 0)
    if _type(concat) != "Concat" or len(concat.inputs()) != PAIR or _last(concat) != PAIR:
        return None
    if any(_type(_source(concat, index)) != "Unsqueeze" for index in range(PAIR)):
        return None
    rotary = _parts(node, *(_source(_source(concat, index), 0) for index in range(PAIR)))
    if rotary is None or rotary.x.get_partial_shape() != node.output(0).get_partial_shape():
        return None
    return rotary


def _parts(node: Any, real: Any, imaginary: Any) -> Rotary | None:
    if (_type(real), _type(imaginary)) != ("Subtract", "Add"):
        return None
    terms = [_term(real, 0), _term(real, 1), _term(imaginary, 0), _term(imaginary, 1)]
    if any(term is None for term in terms):
        return None
    (even, cos), (odd, sin), (odd_again, cos_again), (even_again, sin_again) = (term for term in terms if term is not None)
    same = even == even_again and odd == odd_again and _equal(cos, cos_again) and _equal(sin, sin_again)
    pairs = _source(even, 0)
    taken_apart = (_start(even), _start(odd)) == (0, 1) and _source(odd, 0) == pairs
    if not (same and taken_apart and _type(pairs) == "Reshape" and _last(pairs) == PAIR):
        return None
    return Rotary(node, pairs.input_value(0), cos, sin)


def pair_rotation(width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return P [width, width]: row vectors times P turn each pair (a, b) into (−b, a)."""
    rotation = np.zeros((width, width), np.float32)
    even = np.arange(0, width, PAIR)
    rotation[even + 1, even] = -1
    rotation[even, even + 1] = 1
    return rotation


def _replace(rotary: Rotary) -> None:
    opset = importlib.import_module("openvino.opset13")
    width = rotary.x.get_partial_shape()[-1].get_length()
    twice = opset.constant(np.repeat(np.eye(width // PAIR, dtype=np.float32), PAIR, axis=1))
    cos, sin = (opset.matmul(table, twice, False, False) for table in (rotary.cos, rotary.sin))
    turned = opset.matmul(rotary.x, opset.constant(pair_rotation(width)), False, False)
    rotated = opset.add(opset.multiply(rotary.x, cos), opset.multiply(turned, sin))
    for consumer in rotary.result.output(0).get_target_inputs():
        consumer.replace_source_output(rotated.output(0))


def _term(node: Any, index: int) -> tuple[Any, Any] | None:
    """Split `Multiply(Squeeze(Slice(pairs)), table)`, in either order, into the slice and the table's output."""
    product = _source(node, index)
    if _type(product) != "Multiply":
        return None
    for side in range(PAIR):
        squeeze = _source(product, side)
        if _type(squeeze) == "Squeeze" and _type(_source(squeeze, 0)) == "Slice":
            return _source(squeeze, 0), product.input_value(1 - side)
    return None


def _start(piece: Any) -> int | None:
    """Return where a slice of length 1 of the last axis starts, None for any other slice."""
    start = _source(piece, 1)
    if _type(start) != "Constant" or _last(piece) != 1 or start.get_data().size != 1:
        return None
    return int(start.get_data().item())


def _source(node: Any, index: int) -> Any:
    return node.input_value(index).get_node()


def _type(node: Any) -> str:
    return str(node.get_type_name())


def _last(node: Any) -> int:
    size = node.output(0).get_partial_shape()[-1]
    return int(size.get_length()) if size.is_static else -1


def _equal(left: Any, right: Any) -> bool:
    return bool(left.get_node() == right.get_node() and left.get_index() == right.get_index())
