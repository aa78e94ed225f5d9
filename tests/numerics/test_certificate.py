"""The certificate: which arithmetic it chooses, and that the choice never changes a bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import Accumulator, Certificate, matmul
from numerics._kernels import loops
from numerics._target import Target
from numerics.certificate import Operand
from oracles.rational import DETERMINISTIC, dot_rational, matmul_rational
from oracles.strategies import (
    ACCUMULATORS,
    KINDS,
    OPERANDS,
    STOCHASTIC_TEXTS,
    draw_operands,
    float_formats,
)


def exact_kernel(a, b, accumulator, seed=0, stream=0):
    """The path that needs no certificate, on any operands."""
    accumulator = Accumulator.parse(accumulator)
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    chunk = min(accumulator.chunk or a.shape[1], a.shape[1])
    target = Target.of(accumulator.format, accumulator.rounding)
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    loops.gemm_exact(a, b, out, chunk, target.scalars(), seed, stream, 0)
    return out


PATHS = [
    # Narrow products, a wide range of the accumulator: rounding a float32 sum again is harmless.
    ("e4m3fn", "normal", "e6m9", "float32"),
    ("e5m2", "normal", "e6m9 chunk=8", "float32"),
    # Products wider than the accumulator, but sums that float32 holds exactly.
    ("e2m1", "normal", "e6m2", "float32"),
    ("s3.4", "normal", "e6m5", "float32"),
    ("e4m3fn", "normal", "e8m2", "float64"),
    ("fp16", "normal", "e8m22 chunk=8", "float64"),
    ("e4m3fn", "huge", "e8m13", "float64"),
    ("bf16", "mixed", "e8m7", "float64-full"),
    # Overflow, or results below the normal range: every sum is checked for it.
    ("e4m3fn", "huge", "fp16", "float32-full"),
    ("e5m2", "tiny", "fp16", "float32-full"),
    ("e4m3fn", "huge", "e5m3", "float64-full"),
    ("e4m3fn", "normal", "e6m9 rounding=toward-zero", "float32"),
    ("fp16", "normal", "e8m2 chunk=7 rounding=up", "float32"),
    ("e4m3fn", "huge", "e5m3 rounding=down", "float64-full"),
    ("e4m3fn", "normal", "e6m9 rounding=to-odd", "float64-full"),
]


@pytest.mark.parametrize(("operand", "kind", "accumulator", "path"), PATHS)
def test_each_path_is_taken_and_gives_the_bits_of_the_exact_one(operand, kind, accumulator, path):
    rng = np.random.default_rng(17)
    for shape in ((5, 64, 7), (7, 63, 3), (1, 200, 1), (2, 9, 530)):
        a, b = draw_operands(rng, operand, operand, kind, *shape)
        assert Certificate.of(a, b, Accumulator.parse(accumulator)).path == path
        result = matmul(a, b, accumulator)
        np.testing.assert_array_equal(result, exact_kernel(a, b, accumulator))
        assert result.dtype == np.float32
        parsed = Accumulator.parse(accumulator)
        mode = parsed.rounding.mode.value
        corner = matmul_rational(a[:2].tolist(), b[:, :2].tolist(), parsed.format, mode, chunk=parsed.chunk)
        np.testing.assert_array_equal(result[:2, :2], corner)


@settings(max_examples=300)
@given(
    left=st.sampled_from(OPERANDS),
    right=st.sampled_from(OPERANDS),
    fmt=st.sampled_from(ACCUMULATORS) | float_formats(signed=True).map(str),
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 90), st.integers(1, 4)),
    chunk=st.none() | st.integers(1, 95),
    rounding=st.just("nearest-even") | st.sampled_from(DETERMINISTIC) | STOCHASTIC_TEXTS,
    seed=st.integers(0, 2**32),
)
def test_a_certified_path_and_the_exact_kernel_agree(left, right, fmt, kind, shape, chunk, rounding, seed):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    accumulator = Accumulator(fmt, chunk=chunk, rounding=rounding)
    expected = exact_kernel(a, b, accumulator, seed, 1)
    np.testing.assert_array_equal(matmul(a, b, accumulator, seed=seed, stream=1), expected)


@settings(max_examples=200)
@given(
    operand=st.sampled_from(["e4m3fn", "e5m2", "e2m1", "fp16"]),
    fmt=st.sampled_from(["e6m9", "e8m2", "e6m3", "e8m23", "e7m0none"]),
    kind=st.sampled_from(KINDS),
    length=st.integers(1, 30),
    chunk=st.none() | st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_the_bound_of_the_certificate_holds_every_partial_sum(operand, fmt, kind, length, chunk, seed):
    a, b = draw_operands(np.random.default_rng(seed), operand, operand, kind, 1, length, 1)
    accumulator = Accumulator(fmt, chunk=chunk)
    certificate = Certificate.of(a, b, accumulator)
    # Prefixes reach every value of the outer register; each chunk on its own every inner partial sum.
    step = chunk or length
    sums = [
        dot_rational(a[0, :end], b[:end, 0], accumulator.format, chunk=chunk) for end in range(1, length + 1)
    ]
    sums += [
        dot_rational(a[0, first:end], b[first:end, 0], accumulator.format)
        for first in range(0, length, step)
        for end in range(first + 1, min(first + step, length) + 1)
    ]
    assert max(map(abs, sums)) <= certificate.bound or certificate.path == "exact"


def test_growth_stops_at_the_bound_and_reaches_half_of_it():
    ones = np.ones((1, 100_000), np.float32)
    certificate = Certificate.of(ones, ones.T, Accumulator("e6m9"))
    assert certificate.bound == 2.0**11
    assert matmul(ones, ones.T, "e6m9")[0, 0] == 2.0**10


@settings(max_examples=300)
@given(
    values=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False) | st.just(0.0),
        min_size=1,
        max_size=9,
    )
)
def test_a_glance_sees_the_bounds_that_a_look_at_every_element_does(values):
    x = np.array(values, np.float32)
    quick, full = Operand.at_a_glance(x), Operand.of(x)
    assert (quick.largest, quick.bits, quick.finite) == (full.largest, full.bits, full.finite)
    assert quick.unit <= full.unit
    if np.count_nonzero(x) == 1:
        assert quick.unit == full.unit


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e-45, -1e-40])
def test_a_glance_gives_up_on_specials_and_subnormals(value):
    assert Operand.at_a_glance(np.array([1.0, value], np.float32)) is None
    assert Operand.at_a_glance(np.ones(2)) is None


def test_the_facts_of_an_operand_by_hand():
    x = np.array([[0.0, -6.0], [0.75, 2.0**-9]], np.float32)
    for order in (x, np.asfortranarray(x), x.astype(np.float64)):
        assert Operand.of(order) == (6.0, -9, 2, True)
    assert Operand.at_a_glance(x) == (6.0, -10, 2, True)
    assert Operand.at_a_glance(0 * x) == Operand.of(0 * x) == (0.0, 2000, 0, True)
