"""`axpy`: one rounding of the exact ``alpha * x + y``."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import axpy
from oracles.philox import cast_draws
from oracles.rational import DETERMINISTIC, exact_sum, round_rational
from oracles.strategies import float_formats, hard_values

signed_formats = float_formats(signed=True)


def as_float32(x):
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(np.float32)
    return np.where(np.isfinite(x), x, np.float32(1.0))


def operands(fmt, seed, count=12):
    """x and y on the scale of the format, some of which cancel in alpha * x + y, and alpha."""
    rng = np.random.default_rng(seed)
    alpha = float(np.float32(rng.choice([1.0, -1.0, 0.1, -(2.0**-12), rng.normal(), 3.0**-9, -1e4])))
    x, y = (as_float32(hard_values(fmt, rng, count)) for _ in range(2))
    if rng.random() < 0.5:
        x, y = as_float32(y.astype(float) / alpha), y
        x[::3] *= -1
    return alpha, x, y


def expected_axpy(alpha, x, y, fmt, mode, draws=None):
    return [
        round_rational(
            exact_sum(Fraction(alpha) * Fraction(float(p)), float(q)), fmt, mode, draw=draws and draws[i]
        )
        for i, (p, q) in enumerate(zip(x, y, strict=True))
    ]


@settings(max_examples=300)
@given(fmt=signed_formats, mode=st.sampled_from(DETERMINISTIC), seed=st.integers(0, 2**32))
def test_one_rounding_of_the_exact_value(fmt, mode, seed):
    alpha, x, y = operands(fmt, seed)
    np.testing.assert_array_equal(
        axpy(alpha, x, y, fmt, rounding=mode), expected_axpy(alpha, x, y, fmt, mode)
    )


@given(fmt=signed_formats, bits=st.integers(1, 24), seed=st.integers(0, 2**63 - 1), stream=st.integers(0, 99))
def test_stochastic_with_the_word_of_the_element(fmt, bits, seed, stream):
    alpha, x, y = operands(fmt, seed)
    draws = [cast_draws(seed, stream, bits)(i) for i in range(len(x))]
    rounded = axpy(alpha, x, y, fmt, rounding=f"stochastic:{bits}", seed=seed, stream=stream)
    np.testing.assert_array_equal(rounded, expected_axpy(alpha, x, y, fmt, "stochastic", draws))


def test_a_remainder_beyond_float64_still_decides_a_tie():
    # 1 + 2**-10 is a tie of e6m9; 2**-90 times one is invisible in a float64 sum, and decides it.
    y = np.full(3, 1 + 2.0**-10, np.float32)
    x = np.array([1, 0, -1], np.float32)
    assert axpy(2.0**-90, x, y, "e6m9").tolist() == [1 + 2.0**-9, 1.0, 1.0]
    assert axpy(2.0**-90, x, y, "e6m9", rounding="nearest-away").tolist() == [1 + 2.0**-9, 1 + 2.0**-9, 1.0]


def test_alpha_is_rounded_to_float32_first():
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert axpy(0.1, one, zero, "fp32")[0] == np.float32(0.1)
    assert axpy(1 + 2.0**-24, one, -one, "fp32")[0] == 0.0


def test_infinities_and_nan_follow_ieee():
    x = np.array([np.inf, -np.inf, np.inf, np.nan, 1.0], np.float32)
    y = np.array([0, 1, -np.inf, 0, 1e30], np.float32)
    np.testing.assert_array_equal(axpy(1.0, x, y, "e5m2"), [np.inf, -np.inf, np.nan, np.nan, np.inf])
    np.testing.assert_array_equal(axpy(1.0, x, y, "e4m3fn"), [448, -448, np.nan, np.nan, 448])


def test_an_unsigned_format_has_no_minus_zero():
    small = np.array([-1e-9], np.float32)
    assert not np.signbit(axpy(1.0, small, np.zeros(1, np.float32), "ue5m2"))[0]


def test_any_strides_give_the_result_of_a_copy():
    base = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x, y = base[:4, ::2].T, base[2:4]
    result = axpy(0.3, x, y, "e4m3fn", rounding="stochastic", seed=1)
    np.testing.assert_array_equal(
        result, axpy(0.3, x.copy(), y.copy(), "e4m3fn", rounding="stochastic", seed=1)
    )
    assert axpy(1.0, base[:0], base[:0], "e6m9").shape == (0, 4)


def test_other_operands_are_an_error():
    x = np.ones(3, np.float32)
    with pytest.raises(TypeError, match="y must be float32, got float64"):
        axpy(1.0, x, np.ones(3), "e6m9")
    with pytest.raises(ValueError, match=r"equal in shape, got \(3,\) and \(2,\)"):
        axpy(1.0, x, x[:2], "e6m9")
    with pytest.raises(ValueError, match="needs a seed"):
        axpy(1.0, x, x, "e6m9", rounding="stochastic")
