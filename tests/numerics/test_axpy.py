"""`axpy`: one rounding of the exact ``alpha * x + y``."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import FloatFormat, Rounding, axpy
from numerics._kernels import casts
from numerics._target import Target
from oracles.philox import cast_digits, cast_draws
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


FINE = 2.0**-125  # alpha where y holds all that float64 sees


def beside_steps(fmt, step_bits, rng, count):
    """y on the steps of ``2**-step_bits`` units of `fmt`, from its subnormals to beyond its end, both signs.

    And x that moves them, times `FINE`, by too little for float64, up or down or not.
    """
    low, high = 1 - fmt.bias, (1 << fmt.exp_bits) - fmt.bias
    whole = rng.integers(1, 2 << (fmt.frac_bits + step_bits), count)
    exponent = np.clip(rng.integers(low, high + 1, count), -60, 126)
    y = np.ldexp(whole.astype(float), exponent - fmt.frac_bits - step_bits) * rng.choice([-1.0, 1.0], count)
    x = rng.choice([-1.0, 0.0, 1.0], count) * 2.0 ** rng.integers(-20, 20, count)
    fits = y == y.astype(np.float32)
    assert fits.all()
    return x.astype(np.float32), y.astype(np.float32)


STEPPED = ("e6m9", "e5m2", "e4m3fn", "e2m1", "e4m0fn", "e8m7", "e5m10", "e4m3fnuz", "e5m2p3109", "ue5m2")


@pytest.mark.parametrize("fmt", [*STEPPED, "e8m21", "e8m22", "e4m3-flush"])
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_less_than_float64_sees_decides_beside_every_tie_and_value(fmt, mode):
    fmt = FloatFormat.parse(fmt)
    x, y = beside_steps(fmt, 1, np.random.default_rng(1), 200)
    rounded = axpy(FINE, x, y, fmt, rounding=mode)
    np.testing.assert_array_equal(rounded, expected_axpy(FINE, x, y, fmt, mode))
    if mode == "nearest-even":  # one rounding to float64 before would have been wrong
        twice = [float(round_rational(Fraction(float(v)), fmt, mode)) for v in y]
        assert (rounded != np.array(twice, np.float32)).any()


@pytest.mark.parametrize("fmt", STEPPED)
@pytest.mark.parametrize("bits", [1, 5, 12, 17, 32, 0])
def test_less_than_float64_sees_decides_beside_every_step_of_the_random_bits(fmt, bits):
    fmt, seed = FloatFormat.parse(fmt), 11
    x, y = beside_steps(fmt, min(bits or 12, 23 - fmt.frac_bits), np.random.default_rng(2), 120)
    # The discarded part and the digits of the element just make a unit, or only just not.
    draws = [cast_draws(seed, 5, bits)(i) for i in range(len(x))]
    text = f"stochastic:{bits}" if bits else "stochastic"
    rounded = axpy(FINE, x, y, fmt, rounding=text, seed=seed, stream=5)
    np.testing.assert_array_equal(rounded, expected_axpy(FINE, x, y, fmt, "stochastic", draws))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_product_of_more_bits_than_float32_is_a_tie_or_beside_one(sign):
    # Odd products of 25 bits are ties of fp32, and 2**-140 times 2**25 is invisible beside them.
    alpha, x = 4097.0, sign * np.arange(4097, 8190, 6, dtype=np.float32)
    for move in (-(2.0**-140), 0.0, 2.0**-140):
        y = np.full_like(x, move)
        assert {int(alpha * float(v)) & 1 for v in x} == {1}
        np.testing.assert_array_equal(
            axpy(alpha, x, y, "fp32"), expected_axpy(alpha, x, y, FloatFormat.parse("fp32"), "nearest-even")
        )


def patterns(seed, count):
    """Any bit pattern, and numbers of common size; zeros, infinities, NaN."""
    rng = np.random.default_rng(seed)
    wild = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    tame = rng.normal(0, 4, count).astype(np.float32)
    ends = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, -1e-45], np.float32)
    return rng.permutation(np.concatenate([wild, tame, np.resize(ends, count // 2)]))[:count]


def by_the_plain_loop(alpha, x, y, fmt, rounding, seed, stream):
    target = Target.of(fmt, Rounding.parse(rounding))
    out = np.full(x.shape, np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        casts.axpy_any(float(np.float32(alpha)), x, y, out, target.scalars(), seed, stream)
        return out if fmt.has_minus_zero else out + np.float32(0.0)


def assert_same_bits(one, other):
    nan = np.isnan(one)
    np.testing.assert_array_equal(nan, np.isnan(other))
    np.testing.assert_array_equal(one[~nan].view(np.int32), other[~nan].view(np.int32))


@pytest.mark.parametrize(
    "fmt", [*STEPPED, "fp32", "e4m3noneb4", "e3m0none", "dlfloat16", "ue4m3fn", "e5m2fused-top"]
)
@pytest.mark.parametrize(
    "rounding", ["nearest-even", "stochastic", *(f"stochastic:{r}" for r in (1, 10, 16, 17, 32))]
)
def test_branch_free_kernels_give_the_bits_of_the_plain_loop(fmt, rounding):
    fmt = FloatFormat.parse(fmt)
    x, y = patterns(1, 5000), patterns(2, 5000)
    with np.errstate(over="ignore"):
        x[::5] = y[::5] / np.float32(-0.1)  # cancels but for what the division lost
    for alpha in (-0.1, 1.0, 3e38, 1e-45, 0.0, np.inf, np.nan):
        got = axpy(alpha, x, y, fmt, rounding=rounding, seed=7, stream=3)
        assert_same_bits(got, by_the_plain_loop(alpha, x, y, fmt, rounding, 7, 3))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero", "stochastic", "stochastic:9"])
def test_any_length_is_rounded_as_by_the_plain_loop(size, rounding):
    fmt = FloatFormat.parse("e6m9")
    x, y = patterns(3, 3000)[:size], patterns(4, 3000)[:size]
    got = axpy(0.7, x, y, fmt, rounding=rounding, seed=9)
    assert_same_bits(got, by_the_plain_loop(0.7, x, y, fmt, rounding, 9, 0))


def undecided(count, seed, stream):
    """x and y whose sums with alpha of 2**-24 and the 16 digits of page 0 are all ones in e8m7."""
    digits = np.array([cast_digits(i, 0, seed, stream) for i in range(count)])
    y = (1.0 + (0xFFFF - digits) * 2.0**-23).astype(np.float32)
    return np.random.default_rng(seed).uniform(0, 2, count).astype(np.float32), y


@pytest.mark.parametrize("bits", [0, 16, 17, 20, 32])
@pytest.mark.parametrize("sign", [1, -1])
def test_where_sixteen_digits_do_not_decide_the_next_ones_of_the_element_do(bits, sign):
    fmt, (x, y) = FloatFormat.parse("e8m7"), undecided(1500, 3, 4)
    x, y = sign * x, sign * y
    alpha = 2.0**-24
    draws = [cast_draws(3, 4, bits)(i) for i in range(len(x))]
    expected = np.array(expected_axpy(alpha, x, y, fmt, "stochastic", draws), np.float32)
    assert bits == 16 or 0.2 < np.mean(abs(expected) == 1.0 + 2.0**-7) < 0.7
    text = f"stochastic:{bits}" if bits else "stochastic"
    np.testing.assert_array_equal(axpy(alpha, x, y, fmt, rounding=text, seed=3, stream=4), expected)
    for place in (0, 1):
        pair = x.copy(), y.copy()
        axpy(alpha, *pair, fmt, rounding=text, seed=3, stream=4, out=pair[place])
        np.testing.assert_array_equal(pair[place], expected)


@pytest.mark.parametrize("fmt", ["e5m2", "e4m3fnuz", "e4m3-flush"])
@pytest.mark.parametrize("rounding", ["nearest-even", "up", "stochastic", "stochastic:6"])
def test_writing_to_out_or_in_place_changes_nothing(fmt, rounding):
    x, y = (patterns(seed, 2100).reshape(3, 700) for seed in (5, 6))
    how = {"rounding": rounding, "seed": 2, "stream": 1}
    expected, doubled = axpy(-0.3, x, y, fmt, **how), axpy(-0.3, x, x, fmt, **how)
    fresh = np.full_like(x, 99.0)
    assert axpy(-0.3, x, y, fmt, **how, out=fresh) is fresh
    assert_same_bits(fresh, expected)
    for place in (0, 1):
        both = [x.copy(), y.copy()]
        assert axpy(-0.3, *both, fmt, **how, out=both[place]) is both[place]
        assert_same_bits(both[place], expected)
        np.testing.assert_array_equal(both[1 - place], (x, y)[1 - place])
    alone = x.copy()
    axpy(-0.3, alone, alone, fmt, **how, out=alone)
    assert_same_bits(alone, doubled)


@pytest.mark.parametrize("shift", [1, -1])
def test_an_out_that_overlaps_elsewhere_does_not_corrupt_the_operands(shift):
    other = np.arange(4000, dtype=np.float32)
    for as_x in (True, False):
        buffer = np.random.default_rng(0).normal(size=4001).astype(np.float32)
        operand, out = (buffer[:-1], buffer[1:]) if shift > 0 else (buffer[1:], buffer[:-1])
        pair = (operand, other) if as_x else (other, operand)
        expected = axpy(0.5, *(p.copy() for p in pair), "e6m9")
        axpy(0.5, *pair, "e6m9", out=out)
        np.testing.assert_array_equal(out, expected)


def test_out_beside_operands_of_other_strides_gets_the_result():
    base = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    out = np.empty((2, 4), np.float32)
    x, y = base[:4, ::2].T, base[2:4]
    np.testing.assert_array_equal(axpy(0.3, x, y, "e4m3fn", out=out), axpy(0.3, x.copy(), y, "e4m3fn"))
    scalar = np.array(0.5, np.float32)
    assert axpy(2.0, scalar, scalar, "e6m9", out=scalar) is scalar
    assert scalar == 1.5


@pytest.mark.parametrize(
    "out",
    [np.empty((3, 2), np.float32), np.empty((2, 3)), np.empty((3, 2), np.float32).T, np.empty(6, np.float32)],
)
def test_an_unfit_out_is_an_error(out):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="out must be C-contiguous with shape"):
        axpy(1.0, x, x, "e5m2", out=out)


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
