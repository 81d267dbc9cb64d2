from __future__ import annotations

import pytest
import torch

from engine_builder.quantization import numerics
from engine_builder.quantization.numerics import Encoding, decode, e2m1_codes, e2m1_values, encode, fake_quantize

GAUSSIAN = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))


def relative_error(encoding: Encoding, amax: torch.Tensor | None) -> float:
    return float((fake_quantize(GAUSSIAN, encoding, amax) - GAUSSIAN).norm() / GAUSSIAN.norm())


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [(Encoding.INT8, 0.0099), (Encoding.FP8, 0.0265), (Encoding.FP8_TOKEN, 0.0265), (Encoding.MXFP8, 0.027), (Encoding.NVFP4, 0.0975)],
)
def test_gaussian_noise_has_the_textbook_error_of_the_format(encoding: Encoding, expected: float) -> None:
    amax = GAUSSIAN.abs().max() if encoding in (Encoding.INT8, Encoding.FP8, Encoding.NVFP4) else None
    assert relative_error(encoding, amax) == pytest.approx(expected, rel=0.08)


def test_e2m1_holds_its_sixteen_values_exactly_and_rounds_ties_to_even() -> None:
    codes = torch.arange(16, dtype=torch.uint8)
    assert torch.equal(e2m1_codes(e2m1_values(codes)), codes)
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0])
    assert e2m1_values(e2m1_codes(ties)).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zeros_stay_zeros(encoding: Encoding, dtype: torch.dtype) -> None:
    zeros = torch.zeros(2, 64, dtype=dtype)
    assert torch.equal(fake_quantize(zeros, encoding, zeros.abs().max()), zeros)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_quantizing_what_is_quantized_changes_nothing(encoding: Encoding) -> None:
    amax = GAUSSIAN.abs().max()
    once = decode(encode(GAUSSIAN, encoding, amax), encoding, torch.float32)
    again = decode(encode(once, encoding, amax), encoding, torch.float32)
    # NVFP4 and per-token scales follow the largest value, which is itself rounded: they may move by one code.
    tolerance = {Encoding.NVFP4: 0.03, Encoding.FP8_TOKEN: 1e-6}.get(encoding, 0.0)
    assert float((again - once).norm() / once.norm()) <= tolerance


def test_a_block_scale_depends_on_its_own_block_alone() -> None:
    changed = GAUSSIAN.clone()
    changed[:, :32] *= 100
    for encoding in (Encoding.MXFP8, Encoding.NVFP4):
        amax = torch.tensor(2688.0)
        before, after = (fake_quantize(tensor, encoding, amax)[:, 32:] for tensor in (GAUSSIAN, changed))
        assert torch.equal(before, after)


def test_mxfp8_scales_are_exact_at_powers_of_two() -> None:
    values = torch.zeros(1, 64)
    values[0, 0], values[0, 32] = 448.0 * 2.0**-20, 2.0**30
    assert torch.equal(fake_quantize(values, Encoding.MXFP8, None), values)


@pytest.mark.parametrize("encoding", [Encoding.MXFP8, Encoding.NVFP4])
def test_a_large_weight_is_encoded_in_parts_with_the_same_result(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    amax = GAUSSIAN.abs().max()
    whole = fake_quantize(GAUSSIAN, encoding, amax)
    monkeypatch.setattr(numerics, "_CHUNK", 5000)
    assert torch.equal(fake_quantize(GAUSSIAN, encoding, amax), whole)
