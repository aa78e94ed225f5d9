"""Tiles of fused adders give the bits of the plain kernel, which is tested against rationals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import FloatFormat, FusedAdder, cast, matmul, threads
from numerics import fused as module
from numerics._kernels.tiles import DEPTH
from numerics._kernels.vectors import LANES_32


def pair(rng, formats, shapes, spread):
    operands = []
    for fmt, shape in zip(formats, shapes, strict=True):
        x = rng.normal(size=shape) * 2.0 ** rng.integers(-spread, spread + 1, shape)
        x[rng.random(shape) < 0.1] = 0.0
        operands.append(cast(x.astype(np.float32), fmt, overflow="saturate"))
    return operands


def plainly(a, b, text, formats):
    """The same product with the tiles ruled out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_least_exponent", lambda *_: None)
        return matmul(a, b, text, formats=formats)


def in_tiles(a, b, text, formats):
    parsed = tuple(FloatFormat.parse(fmt) for fmt in formats)
    return module._least_exponent(a, b, FusedAdder.parse(text), parsed) is not None


def same_bits(a, b, text, formats):
    got = matmul(a, b, text, formats=formats)
    np.testing.assert_array_equal(got.view(np.int32), plainly(a, b, text, formats).view(np.int32))


ADDERS = [
    ("hopper-fp8", ("e4m3fn", "e4m3fn")),
    ("hopper-fp8 promote=64", ("e4m3fn", "e5m2")),
    ("ada-fp8", ("e5m2", "e5m2")),
    ("volta", ("fp16", "fp16")),
    ("ampere promote=48", ("fp16", "fp16")),
    ("turing", ("fp16", "e4m3fn")),
    ("fused products=7 align_bits=9 output=e8m5", ("e4m3fn", "e2m1")),
    ("fused products=1 align_bits=3 output=e8m23", ("e3m2", "e2m3")),
    ("fused products=1 align_bits=5 output=e8m9 promote=1", ("e3m2", "e2m3")),
]


@pytest.mark.parametrize(("text", "formats"), ADDERS)
@settings(max_examples=40)
@given(
    m=st.integers(1, 11),
    n=st.integers(1, 5 * LANES_32 // 2),
    k=st.integers(1, 100),
    spread=st.integers(0, 12),
    seed=st.integers(0, 999),
)
def test_tiles_of_any_shape_give_the_bits_of_the_plain_kernel(text, formats, m, n, k, spread, seed):
    a, b = pair(np.random.default_rng(seed), formats, ((m, k), (k, n)), spread)
    assert in_tiles(a, b, text, formats)
    same_bits(a, b, text, formats)


@pytest.mark.parametrize("depth", [DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH + 40])
def test_a_sum_put_down_and_taken_up_again_is_the_same_sum(depth):
    formats = ("e4m3fn", "e5m2")
    a, b = pair(np.random.default_rng(depth), formats, ((5, depth), (depth, LANES_32 + 1)), 3)
    for text in ("hopper-fp8", "ada-fp8 promote=128", "fused products=7 align_bits=12 output=e8m13"):
        same_bits(a, b, text, formats)


def test_the_number_of_threads_changes_no_bit():
    formats = ("e4m3fn", "e4m3fn")
    a, b = pair(np.random.default_rng(0), formats, ((200, 300), (300, 100)), 0)
    results = []
    try:
        for count in (1, 2, 3):
            threads.limit(count)
            results.append(matmul(a, b, "hopper-fp8 promote=128", formats=formats))
    finally:
        threads.limit(None)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("text", "formats", "why"),
    [
        ("hopper-fp16", ("fp16", "fp16"), "sixteen terms of 27 bits and an addend may need 32 bits"),
        ("volta", ("bf16", "bf16"), "terms may be below the range of float32"),
        ("volta output=fp16", ("fp16", "fp16"), "the output has subnormals above the last bits"),
        ("hopper-fp8 rounding=nearest-even", ("e4m3fn", "e4m3fn"), "the output is not cut"),
        ("hopper-fp8", ("e4m3fn", "e5m10-flush"), "no subnormals"),
    ],
)
def test_what_the_tiles_cannot_do_is_left_to_the_plain_kernel(text, formats, why):
    a, b = pair(np.random.default_rng(1), formats, ((3, 40), (40, 9)), 0)
    assert not in_tiles(a, b, text, formats), why


def test_operands_off_their_format_do_not_reach_the_tiles():
    a = np.full((2, 3), 1.0 + 2.0**-4, np.float32)
    with pytest.raises(ValueError, match=r"a must hold values of e4m3fn, got 1.0625"):
        matmul(a, np.ones((3, 2), np.float32), "hopper-fp8", formats=("e4m3fn", "e4m3fn"))
