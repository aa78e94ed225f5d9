"""Dot and matrix products, bit for bit the sums of the definition, whichever arithmetic is chosen."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from numerics import Accumulator, cast, dot, matmul, parse_format
from oracles.rational import DETERMINISTIC, dot_rational, matmul_rational
from oracles.strategies import ACCUMULATORS, KINDS, OPERANDS, draw_operands, float_formats


def judge(a, b, accumulator):
    """Matrix of the sums of the definition."""
    accumulator = Accumulator.parse(accumulator)
    mode = accumulator.rounding.mode.value
    rows = matmul_rational(a.tolist(), b.tolist(), accumulator.format, mode, chunk=accumulator.chunk)
    return np.array(rows).reshape(len(a), b.shape[1])


@settings(max_examples=500)
@given(
    left=st.sampled_from(OPERANDS),
    right=st.sampled_from(OPERANDS),
    fmt=st.sampled_from(ACCUMULATORS),
    mode=st.sampled_from(DETERMINISTIC) | st.just("nearest-even"),
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 3)),
    chunk=st.none() | st.integers(1, 26),
    seed=st.integers(0, 2**32),
)
def test_every_element_is_the_rational_sum(left, right, fmt, mode, kind, shape, chunk, seed):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    accumulator = Accumulator(fmt, rounding=mode, chunk=chunk)
    np.testing.assert_array_equal(matmul(a, b, accumulator), judge(a, b, accumulator))


@settings(max_examples=300)
@given(
    fmt=float_formats(signed=True),
    operand=float_formats(max_frac_bits=10),
    mode=st.sampled_from(DETERMINISTIC) | st.just("nearest-even"),
    chunk=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_any_accumulator_format_sums_values_of_its_own_range(fmt, operand, mode, chunk, seed):
    rng = np.random.default_rng(seed)
    # Products on the scale of the accumulator: its least unit up to half its largest value.
    low, high = math.log2(fmt.min_subnormal), math.log2(fmt.max)
    exponent = low + (high - low) * rng.random()
    wanted = rng.normal(size=8) * 2.0 ** (exponent - rng.choice([0, 1, 8], 8))
    b = cast(rng.normal(size=(8, 1)), operand, overflow="saturate")
    a = (wanted[:, None] / np.where(b == 0, 1, b)).T
    with np.errstate(over="ignore", under="ignore"):
        a, b = cast(a, "e8m10").astype(np.float32), b.astype(np.float32)
    assume(np.isfinite(a).all())
    accumulator = Accumulator(fmt, rounding=mode, chunk=chunk)
    np.testing.assert_array_equal(matmul(a, b, accumulator), judge(a, b, accumulator))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("large", "fmt"), [((384.0, 384.0), "e8m2"), ((320.0, 256.0), "e8m1"), ((288.0, 2.0), "e8m2")]
)
def test_a_tiny_accumulator_decides_the_tie_of_a_wide_product(sign, large, fmt):
    # 384 * 384 = 1.125 * 2**17 lies midway between two values of e8m2; a sum in float32 forgets
    # the 2**-18 that came before it.
    tiny = 2.0**-9
    a = np.array([[tiny, large[0]]], np.float32)
    b = np.array([[sign * tiny], [large[1]]], np.float32)
    product = Fraction(large[0]) * Fraction(large[1])
    result = matmul(a, b, fmt)[0, 0]
    assert (result > product) == (sign > 0)
    np.testing.assert_array_equal(result, judge(a, b, fmt)[0][0])


@pytest.mark.parametrize("length", [0, 1, 2, 6, 7, 8, 13, 14, 15, 40])
@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
@pytest.mark.parametrize("rounding", ["nearest-even", "up"])
def test_chunks_of_every_remainder(length, chunk, rounding):
    rng = np.random.default_rng(length)
    a, b = draw_operands(rng, "e4m3fn", "e4m3fn", "normal", 1, length, 1)
    accumulator = Accumulator("e6m3", rounding=rounding, chunk=chunk)
    assert dot(a[0], b[:, 0], accumulator) == dot_rational(
        a[0], b[:, 0], accumulator.format, rounding, chunk=chunk
    )


def test_two_roundings_in_a_chunk_of_one():
    # Products are rounded alone, then added: 1 + 2**-4 is a tie of e6m3 that goes to 1, twice.
    a = np.array([1 + 2.0**-4, 2.0**-4, 2.0**-4], np.float32)
    ones = np.ones(3, np.float32)
    assert dot(a, ones, "e6m3 chunk=1") == 1.0
    assert dot(a[::-1], ones, "e6m3 chunk=3") == 1.25
    assert dot(a[::-1], ones, "e6m3 chunk=1") == 1.125


def test_the_order_of_the_sum_is_that_of_the_index():
    a = np.array([1024.0, 1, 1, 1, 1, 1, 1, 1], np.float32)
    ones = np.ones(8, np.float32)
    assert dot(a, ones, "e6m9") == 1024.0
    assert dot(a[::-1], ones, "e6m9") == 1032.0  # 1031 is a tie between 1030 and 1032


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("fmt", ["e5m2", "e4m3fn", "e5m6none", "fp16"])
def test_overflow_is_an_infinity_or_the_largest_value_and_stays_or_returns(fmt, mode):
    top = parse_format(fmt).max
    a = np.array([[top, top, -top, -top, -top, top]], np.float32)
    b = np.ones((6, 1), np.float32)
    for end in range(1, 7):
        accumulator, left, right = Accumulator(fmt, rounding=mode), a[:, :end], b[:end]
        np.testing.assert_array_equal(matmul(left, right, accumulator), judge(left, right, accumulator))


def test_infinities_and_nan_of_the_operands_follow_ieee():
    inf, nan = np.inf, np.nan
    a = np.array([[1, inf], [1, nan], [inf, -inf], [inf, 0], [-inf, 1]], np.float32)
    b = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    expected = [[inf, inf], [nan, nan], [nan, nan], [inf, nan], [-inf, nan]]
    np.testing.assert_array_equal(matmul(a, b, "e6m9"), expected)
    assert matmul(a[:1], b, "e4m3fn").tolist() == [[448.0, 448.0]]


@pytest.mark.parametrize(
    "dtypes", [(np.float32, np.float64), (np.float64, np.float32), (np.float64, np.float64)]
)
@pytest.mark.parametrize("accumulator", ["e6m9", "e8m22", "e6m9 rounding=down"])
def test_neither_dtype_nor_strides_matter(dtypes, accumulator):
    rng = np.random.default_rng(5)
    a, b = draw_operands(rng, "e4m3fn", "e4m3fn", "normal", 6, 20, 9)
    expected = matmul(a, b, accumulator)
    wide = np.zeros((12, 40), dtypes[0])
    wide[::2, ::-2] = a
    turned = np.asfortranarray(b.astype(dtypes[1]))
    np.testing.assert_array_equal(matmul(wide[::2, ::-2], turned, accumulator), expected)
    frozen = a.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(matmul(frozen, b, accumulator), expected)
    np.testing.assert_array_equal(matmul(b.T, a.T, accumulator), expected.T)


def test_operands_are_left_alone():
    a, b = draw_operands(np.random.default_rng(5), "e4m3fn", "e4m3fn", "normal", 6, 20, 9)
    copies = a.copy(), b.copy()
    matmul(a, b, "e6m9 chunk=4")
    np.testing.assert_array_equal(a, copies[0])
    np.testing.assert_array_equal(b, copies[1])


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
def test_empty_sums_are_zero_and_empty_results_empty(shape):
    m, k, n = shape
    result = matmul(np.ones((m, k), np.float32), np.ones((k, n), np.float32), "e6m9 chunk=2")
    np.testing.assert_array_equal(result, np.zeros((m, n)))
    assert result.dtype == np.float32


def test_other_operands_are_an_error():
    a = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="b must be a float32 or float64 array, got float16"):
        matmul(a, np.ones((3, 2), np.float16), "e6m9")
    with pytest.raises(TypeError, match="a must be a float32 or float64 array, got list"):
        matmul([[1.0]], a, "e6m9")
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 3\)"):
        matmul(a, a, "e6m9")
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        dot(np.ones(3), np.ones(2), "e6m9")


# float64 operands reach far beyond float32 while their products are ordinary numbers.


@pytest.mark.parametrize("accumulator", ["e6m9", "e8m22", "e6m9 rounding=up"])
def test_float64_operands_beyond_the_range_of_float32(accumulator):
    a = np.array([[2.0**-200, 2.0**-201]])
    b = np.array([[2.0**200], [2.0**201]])
    assert matmul(a, b, accumulator)[0, 0] == 2.0


def test_zeros_times_float64_operands_beyond_the_range_of_float32():
    assert matmul(np.zeros((1, 1)), np.array([[2.0**300]]), "e6m9")[0, 0] == 0.0


@pytest.mark.parametrize(("size", "rounding"), [(2.0**-600, "up"), (2.0**600, "toward-zero")])
def test_products_beyond_the_range_of_float64_are_an_error_or_right(size, rounding):
    # The exact product is 2**-1200 or 2**1200: above zero, below infinity.
    accumulator = Accumulator("e6m9", rounding=rounding)
    a = np.array([size])
    try:
        result = dot(a, a, accumulator)
    except ValueError as error:
        assert "product" in str(error)  # noqa: PT017
    else:
        assert result == dot_rational(a, a, accumulator.format, rounding)


def test_an_accumulator_that_reaches_below_the_normal_numbers_of_float32():
    # 2**-128 + 2**-135 has eight significand bits and must be rounded to three: 2**-128.
    a = np.array([[2.0**-64, 2.0**-71]], np.float32)
    b = np.full((2, 1), 2.0**-64, np.float32)
    assert matmul(a, b, "e4m2b140")[0, 0] == 2.0**-128


def test_products_that_float64_cannot_hold_are_an_error():
    third = np.full((1, 1), 1 / 3)
    with pytest.raises(ValueError, match=r"must fit 53 bits, got 53 \+ 53"):
        matmul(third, third, "e6m9")


def test_a_nan_does_not_hide_products_that_float64_cannot_hold():
    third = np.full((2, 1), 1 / 3)
    with pytest.raises(ValueError, match="must fit 53 bits"):
        matmul(np.array([[np.nan, 0], [1 / 3, 1 / 3]]), third, "e8m23")
