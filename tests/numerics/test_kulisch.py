"""The exact accumulator: the rational sum, rounded once."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import ExactAccumulator, cast, dot, matmul, parse_accumulator
from oracles.philox import sum_draws
from oracles.rational import DETERMINISTIC, round_rational
from oracles.strategies import ACCUMULATORS, KINDS, OPERANDS, STOCHASTIC_TEXTS, draw_operands, float_formats

roundings = st.sampled_from(DETERMINISTIC) | STOCHASTIC_TEXTS


def judge(a, b, acc, seed=0, stream=0):
    """Matrix of exact sums, each rounded once."""
    rounding, result = acc.rounding, np.empty((len(a), b.shape[1]))
    for i, j in np.ndindex(result.shape):
        total = sum(
            (Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[i], b[:, j], strict=True)), Fraction(0)
        )
        draw = None
        if rounding.is_stochastic:
            draw = sum_draws(seed, stream, rounding.random_bits)(i * b.shape[1] + j, 0)
        result[i, j] = round_rational(total, acc.output, rounding.mode.value, draw=draw)
    return result


@settings(max_examples=600)
@given(
    left=st.sampled_from(OPERANDS),
    right=st.sampled_from(OPERANDS),
    output=st.sampled_from(ACCUMULATORS) | float_formats(signed=True),
    rounding=roundings,
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3)),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_element_is_the_exact_sum_rounded_once(left, right, output, rounding, kind, shape, seed):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    acc = ExactAccumulator(output, rounding=rounding)
    np.testing.assert_array_equal(matmul(a, b, acc, seed=seed, stream=5), judge(a, b, acc, seed, 5))


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(DETERMINISTIC),
    reach=st.sampled_from([10, 120, 300]),
    cancel=st.booleans(),
)
def test_float64_operands_of_any_size_are_summed_exactly(seed, mode, reach, cancel):
    rng = np.random.default_rng(seed)
    a = np.ldexp(rng.integers(-(2**24), 2**24, (2, 12)).astype(float), rng.integers(-reach, reach, (2, 12)))
    b = np.ldexp(
        rng.integers(-(2**24), 2**24, (12, 2)).astype(float), rng.integers(-reach // 2, reach // 2, (12, 2))
    )
    if cancel:
        # What is left of a sum that cancels is small, wherever the large terms were.
        a, b = np.hstack([a, -a, a[:, :1] * 2.0**-reach]), np.vstack([b, b, b[:1]])
    acc = ExactAccumulator("e8m10", rounding=mode)
    np.testing.assert_array_equal(matmul(a, b, acc), judge(a, b, acc))


def test_nothing_is_swamped_by_hand():
    a = np.array([2.0**100, 1, -(2.0**100), 2.0**-40])
    ones = np.ones(4)
    assert dot(a, ones, "exact output=e8m23") == 1.0
    assert dot(a, ones, "exact output=e8m23 rounding=up") == 1 + 2.0**-23
    assert dot(-a, ones, "exact output=e8m23 rounding=down") == -1 - 2.0**-23
    x = np.ones(2**17, np.float32)
    assert dot(x, x, "exact output=e6m9") == 131072.0


def test_the_sum_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=500) * 2.0 ** rng.integers(-9, 9, 500), "e8m10") for _ in range(2))
    turn = rng.permutation(500)
    expected = np.float32(math.fsum(a * b))
    assert dot(a, b, "exact output=e8m23") == dot(a[turn], b[turn], "exact output=e8m23") == expected


def test_infinities_and_nan_follow_ieee():
    a = np.array([[1, np.inf], [np.nan, 1], [np.inf, -np.inf], [np.inf, 0], [-np.inf, 1], [0, 0]], np.float32)
    result = matmul(a, np.ones((2, 1), np.float32), "exact output=e6m9")[:, 0]
    np.testing.assert_array_equal(result, [np.inf, np.nan, np.nan, np.inf, -np.inf, 0.0])
    np.testing.assert_array_equal(
        matmul(a[:1], np.zeros((2, 1), np.float32), "exact output=e6m9"), [[np.nan]]
    )


@given(output=float_formats(signed=True), rounding=roundings)
def test_text_reads_back(output, rounding):
    acc = ExactAccumulator(output, rounding=rounding)
    assert ExactAccumulator.parse(str(acc)) == parse_accumulator(str(acc)) == acc


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exact", "must be exact output=<format>, got 'exact'"),
        ("exact e6m9", "got 'e6m9'"),
        ("exact output=ue4m3fn", "output must be signed, got ue4m3fn"),
        ("exact output=e6m9 chunk=4", "got 'chunk'"),
    ],
)
def test_a_bad_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_accumulator(text)


def test_what_it_cannot_do_is_an_error():
    x = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="seed"):
        matmul(x, x, "exact output=e6m9 rounding=stochastic")
    with pytest.raises(ValueError, match="formats are for fused adders"):
        matmul(x, x, "exact output=e6m9", formats=("fp16", "fp16"))


def test_the_report_tells_what_the_one_rounding_did():
    ones = np.ones((1, 3), np.float32)
    column = lambda *x: np.array(x, np.float32)[:, None]  # noqa: E731
    for last, name in ((4e4, "overflow"), (2.0**-17, "underflow"), (1.0, None)):
        b = column(3e4 if name == "overflow" else 0.0, last, 0.0)
        _, report = matmul(ones, b, "exact output=e5m2", report=True)
        assert {n: getattr(report, n) for n in COUNTS} == {n: int(n == name) for n in COUNTS}
    _, report = matmul(ones, column(3e4, 3e4, 3e4), "exact output=e5m2 rounding=toward-zero", report=True)
    assert (report.saturation, report.overflow) == (1, 0)


COUNTS = ("additions", "swamped", "overflow", "underflow", "saturation", "max_shift")


@pytest.mark.parametrize("distance", [54, 105, 106, 107, 120, 200, 290])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bit_far_below_the_others_decides_a_tie_and_a_direction(distance, sign):
    # 1 + half a unit of e6m9, and 2**-distance above or below it.
    half = distance // 2
    a = np.array([[1.0, 2.0**-5, sign * 2.0**-half]])
    b = np.array([[1.0], [2.0**-5], [2.0 ** (half - distance)]])
    expected = {"nearest-even": 1.0 + 2.0**-9 * (sign > 0), "up": 1.0 + 2.0**-9, "down": 1.0}
    for rounding, result in expected.items():
        assert matmul(a, b, f"exact output=e6m9 rounding={rounding}") == result
        assert matmul(a[:, 1:], b[1:], f"exact output=e6m9 rounding={rounding}") == (
            2.0**-10 * (1 + 2.0**-9)
            if (rounding == "up" and sign > 0)
            else 2.0**-10
            if rounding != "down" or sign > 0
            else 2.0**-10 * (1 - 2.0**-10)
        )


def test_products_of_all_53_bits_are_added_whole():
    rng = np.random.default_rng(0)
    a = (
        rng.integers(1 << 25, 1 << 26, (4, 9))
        * 2.0 ** rng.integers(-40, 10, (4, 9))
        * rng.choice([-1.0, 1.0], (4, 9))
    )
    b = rng.integers(1 << 26, 1 << 27, (9, 3)) * 2.0 ** rng.integers(-40, 10, (9, 3))
    for text in (
        "exact output=e8m23",
        "exact output=e8m23 rounding=up",
        "exact output=e8m23 rounding=to-odd",
    ):
        acc = parse_accumulator(text)
        np.testing.assert_array_equal(matmul(a, b, acc), judge(a, b, acc))
