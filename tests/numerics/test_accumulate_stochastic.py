"""Stochastic accumulators: every sum replayed with the same random words in exact arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import Accumulator, dot, matmul
from oracles.philox import sum_draws
from oracles.rational import matmul_rational
from oracles.strategies import KINDS, draw_operands, float_formats


def replay(a, b, accumulator, seed, stream):
    random = sum_draws(seed, stream, accumulator.rounding.random_bits)
    rows = matmul_rational(
        a.tolist(), b.tolist(), accumulator.format, "stochastic", chunk=accumulator.chunk, draws=random
    )
    return np.array(rows).reshape(len(a), b.shape[1])


@settings(max_examples=200)
@given(
    operand=st.sampled_from(["e4m3fn", "e5m2", "fp16", "fp32"]),
    fmt=st.sampled_from(["e6m9", "e5m2", "e4m3fn", "e8m23", "e5m3-flush"]) | float_formats(signed=True),
    bits=st.integers(0, 32),
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 3)),
    chunk=st.none() | st.integers(1, 15),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**63 - 1),
)
def test_every_addition_uses_the_word_of_its_element_and_number(
    operand, fmt, bits, kind, shape, chunk, seed, stream
):
    a, b = draw_operands(np.random.default_rng(seed), operand, operand, kind, *shape)
    accumulator = Accumulator(fmt, rounding=f"stochastic:{bits}" if bits else "stochastic", chunk=chunk)
    result = matmul(a, b, accumulator, seed=seed, stream=stream)
    np.testing.assert_array_equal(result, replay(a, b, accumulator, seed, stream))


def test_a_seed_is_required_and_must_be_in_range():
    ones = np.ones(3)
    with pytest.raises(ValueError, match=r"rounding stochastic:4 needs a seed .* got None"):
        dot(ones, ones, "e6m9 rounding=stochastic:4")
    with pytest.raises(ValueError, match=r"seed must be in .* got -1"):
        dot(ones, ones, "e6m9 rounding=stochastic:4", seed=-1)


def test_equal_keys_repeat_and_others_differ():
    rng = np.random.default_rng(0)
    a, b = draw_operands(rng, "e4m3fn", "e4m3fn", "normal", 16, 64, 16)
    acc = "e6m5 rounding=stochastic"
    first = matmul(a, b, acc, seed=1, stream=2)
    np.testing.assert_array_equal(matmul(a, b, acc, seed=1, stream=2), first)
    for key in ((2, 2), (1, 3), (2, 1)):
        assert (matmul(a, b, acc, seed=key[0], stream=key[1]) != first).mean() > 0.5


def test_the_words_of_a_row_do_not_depend_on_later_rows():
    a, b = draw_operands(np.random.default_rng(0), "e4m3fn", "e4m3fn", "normal", 9, 40, 5)
    whole = matmul(a, b, "e6m5 rounding=stochastic", seed=1)
    np.testing.assert_array_equal(matmul(a[:4], b, "e6m5 rounding=stochastic", seed=1), whole[:4])


def test_outputs_are_independent_of_each_other():
    # 64 x 64 equal dot products: were rows or columns to share random words, the means over rows or
    # over columns would scatter more than 64 independent sums do.
    ones = np.ones((64, 200), np.float32)
    sums = matmul(ones, ones.T * np.float32(1.1), "e6m4 rounding=stochastic", seed=5).astype(float)
    deviation = sums.std()
    assert deviation > 1.0
    for axis in (0, 1):
        # (n - 1) s**2 / sigma**2 is chi-squared with 63 degrees of freedom: 63 +- 11.2.
        scatter = 63 * sums.mean(axis).var(ddof=1) * 64 / deviation**2
        assert 63 - 5 * 11.2 < scatter < 63 + 5 * 11.2


@pytest.mark.parametrize("chunk", [None, 16])
def test_the_mean_over_keys_is_the_exact_sum(chunk):
    a, b = draw_operands(np.random.default_rng(3), "e4m3fn", "e4m3fn", "normal", 1, 64, 1)
    exact = float(a[0].astype(float) @ b[:, 0].astype(float))
    accumulator = Accumulator("e6m4", rounding="stochastic", chunk=chunk)
    sums = matmul(np.repeat(a, 4000, 0), b, accumulator, seed=0).astype(float)
    assert sums.std() > 0
    assert abs(sums.mean() - exact) < 5 * sums.std() / np.sqrt(4000)


def test_chunks_share_no_words():
    # Both chunks hold the same products; with the same words both would give the same partial sum.
    ones = np.ones((500, 2 * 32), np.float32)
    column = np.full((64, 1), 1.1, np.float32)
    half = Accumulator("e6m3", rounding="stochastic")
    both = Accumulator("e6m3", rounding="stochastic", chunk=32)
    first = matmul(ones[:, :32], column[:32], half, seed=0)[:, 0]
    total = matmul(ones, column, both, seed=0)[:, 0]
    assert (total != 2 * first).mean() > 0.3
