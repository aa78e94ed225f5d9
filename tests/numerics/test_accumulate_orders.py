"""Rounded products, outer registers, lanes and trees: bit for bit the sums of the definition."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import Accumulator, Rounding, cast, dot, matmul
from oracles.orders import Rounder, sum_rational
from oracles.philox import sum_draws
from oracles.rational import DETERMINISTIC
from oracles.strategies import ACCUMULATORS, KINDS, OPERANDS, STOCHASTIC_TEXTS, draw_operands, float_formats

COUNTS = ("additions", "swamped", "overflow", "underflow", "saturation", "max_shift")
modes = st.sampled_from(DETERMINISTIC) | st.just("nearest-even")


def judge(a, b, acc, seed=0, stream=0):
    """Matrix of the sums of the definition, and the counts of its roundings."""
    rows, counts = [], dict.fromkeys(COUNTS, 0)
    for i in range(len(a)):
        row = []
        for j in range(b.shape[1]):
            element = i * b.shape[1] + j
            rounder = Rounder(lambda bits, element=element: partial(sum_draws(seed, stream, bits), element))
            row.append(sum_rational(a[i].tolist(), b[:, j].tolist(), acc, rounder))
            for name in COUNTS:
                merge = max if name == "max_shift" else lambda x, y: x + y
                counts[name] = merge(counts[name], rounder.counts[name])
        rows.append(row)
    return np.array(rows).reshape(len(a), b.shape[1]), counts


@st.composite
def accumulators(draw, roundings):
    """Accumulators with every combination of options."""
    chunk = draw(st.none() | st.integers(1, 26))
    order = draw(st.sampled_from(["sequential", "pairwise"]))
    formats = st.sampled_from(ACCUMULATORS) | float_formats(signed=True)
    outer = None
    if chunk is not None and draw(st.booleans()):
        outer = f"{draw(formats)}/{draw(roundings)}"
    return Accumulator(
        draw(formats),
        rounding=draw(roundings),
        product=draw(st.none() | formats),
        chunk=chunk,
        outer=outer,
        lanes=1 if order == "pairwise" else draw(st.integers(1, 6)),
        order=order,
    )


cases = {
    "left": st.sampled_from(OPERANDS),
    "right": st.sampled_from(OPERANDS),
    "kind": st.sampled_from(KINDS),
    "shape": st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 3)),
    "seed": st.integers(0, 2**63 - 1),
}


@settings(max_examples=600)
@given(acc=accumulators(modes), **cases)
def test_every_element_and_every_count_is_that_of_the_definition(left, right, acc, kind, shape, seed):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    expected, counts = judge(a, b, acc)
    np.testing.assert_array_equal(matmul(a, b, acc), expected)
    counted, report = matmul(a, b, acc, report=True)
    np.testing.assert_array_equal(counted, expected)
    assert {name: getattr(report, name) for name in COUNTS} == counts


@settings(max_examples=200)
@given(
    acc=accumulators(modes | STOCHASTIC_TEXTS),
    stream=st.integers(0, 2**63 - 1),
    **cases,
)
def test_every_rounding_uses_the_word_of_its_element_and_number(left, right, acc, kind, shape, seed, stream):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    expected, counts = judge(a, b, acc, seed, stream)
    np.testing.assert_array_equal(matmul(a, b, acc, seed=seed, stream=stream), expected)
    _, report = matmul(a, b, acc, seed=seed, stream=stream, report=True)
    assert {name: getattr(report, name) for name in COUNTS} == counts


@settings(max_examples=100)
@given(
    fmt=st.sampled_from(ACCUMULATORS),
    mode=modes,
    chunk=st.none() | st.integers(1, 40),
    kind=st.sampled_from(KINDS),
)
def test_counting_changes_no_bit_of_a_plain_sum(fmt, mode, chunk, kind):
    a, b = draw_operands(np.random.default_rng(chunk), "e4m3fn", "e5m2", kind, 5, 37, 4)
    acc = Accumulator(fmt, rounding=mode, chunk=chunk)
    np.testing.assert_array_equal(matmul(a, b, acc, report=True)[0], matmul(a, b, acc))


@pytest.mark.parametrize("length", [0, 1, 2, 6, 7, 8, 13, 14, 15, 16, 17, 40])
@pytest.mark.parametrize(
    "text",
    [
        "e6m3 chunk=7 outer=e8m4/down",
        "e6m3 chunk=7 lanes=3 rounding=up",
        "e6m3 lanes=7 product=e5m2",
        "e6m3 order=pairwise",
        "e6m3 order=pairwise chunk=7 rounding=up",
    ],
)
def test_chunks_lanes_and_trees_of_every_remainder(length, text):
    a, b = draw_operands(np.random.default_rng(length), "e4m3fn", "e4m3fn", "normal", 1, length, 1)
    acc = Accumulator.parse(text)
    assert dot(a[0], b[:, 0], acc) == sum_rational(a[0], b[:, 0], acc, Rounder())


def test_a_rounded_product_differs_from_a_fused_one_by_hand():
    # 1.25 * 1.25 = 1.5625 lies between 1.5 and 1.75 of e5m2; 1.5625 - 1.5 survives only unrounded.
    a, b = np.array([-1.5, 1.25], np.float32), np.array([1, 1.25], np.float32)
    assert dot(a, b, "e5m2") == 0.0625
    assert dot(a, b, "e5m2 product=e5m2") == 0.0


def test_lanes_split_a_stalling_sum():
    ones = np.ones(4096)
    assert dot(ones, ones, "e6m9") == 1024.0
    assert dot(ones, ones, "e6m9 lanes=4") == 4096.0
    # Lane 0 holds 64 and 1, lane 1 holds 1 and 1, and 65 is a tie that goes to 64 in e6m5.
    a = np.array([64.0, 1, 1, 1])
    assert dot(a, ones[:4], "e6m5 lanes=2") == 66.0
    assert dot(a, ones[:4], "e6m5") == 64.0


def test_a_tree_of_three_adds_the_first_two_first():
    ones = np.ones(3)
    # 65 is a tie of e6m5 that goes to 64, twice; 1 + 1 first gives 66.
    assert dot(np.array([64.0, 1, 1]), ones, "e6m5 order=pairwise") == 64.0
    assert dot(np.array([1.0, 1, 64]), ones, "e6m5 order=pairwise") == 66.0
    assert dot(np.ones(4096), np.ones(4096), "e6m5 order=pairwise") == 4096.0


def test_a_wide_outer_register_keeps_what_a_narrow_one_loses():
    ones = np.ones(2**17)
    assert dot(ones, ones, "e6m9 chunk=64") == 65536.0
    assert dot(ones, ones, "e6m9 chunk=64 outer=e8m23") == 131072.0
    # A sum that fits no chunk is still delivered by the outer register: 5 in e8m1 is a tie of 4 and 6.
    assert dot(ones[:5], ones[:5], "e6m9 chunk=64 outer=e8m1") == 4.0


def test_an_outer_register_alone_needs_its_seed():
    ones = np.ones(3)
    text = "e6m9 chunk=2 outer=e5m2/stochastic:4"
    with pytest.raises(ValueError, match=r"rounding stochastic:4 needs a seed .* got None"):
        dot(ones, ones, text)
    assert dot(ones, ones, text, seed=1) == 3.0


@pytest.mark.parametrize("text", ["e6m9 product=e4m3fn", "e6m3 lanes=4", "e6m3 order=pairwise"])
def test_the_mean_of_stochastic_sums_is_the_exact_sum(text):
    rng = np.random.default_rng(3)
    a, b = np.abs(cast(rng.normal(size=(1, 64)), "e3m2")), np.abs(cast(rng.normal(size=(64, 1)), "e3m2"))
    acc = Accumulator.parse(text + " rounding=stochastic")
    assert acc.rounding == Rounding.STOCHASTIC
    sums = matmul(np.repeat(a, 4000, 0), b, acc, seed=0)[:, 0].astype(float)
    assert sums.std() > 0
    assert abs(sums.mean() - float((a @ b)[0, 0])) < 5 * sums.std() / np.sqrt(4000)


def test_counts_by_hand():
    a = np.array([[1024.0, 1, 0, 448, 448], [1, 2**-9, 3, 4, 5]], np.float32)
    _, report = matmul(a[:1, :3], np.ones((3, 1), np.float32), "e6m9", report=True)
    assert (report.additions, report.swamped, report.max_shift, report.overflow) == (3, 1, 10, 0)
    _, report = matmul(a[:1, 3:], np.ones((2, 1), np.float32), "e4m3fn", report=True)
    assert (report.saturation, report.overflow, report.swamped) == (1, 0, 1)
    _, report = matmul(a[:1, 3:] * 128, np.ones((2, 1), np.float32), "fp16", report=True)
    assert (report.saturation, report.overflow) == (0, 1)
    _, report = matmul(a[1:, 1:2] * 2.0**-10, a[1:, :1], "e5m2", report=True)
    assert (report.underflow, report.additions) == (1, 1)


def test_an_empty_sum_reports_nothing():
    out, report = matmul(np.ones((2, 0), np.float32), np.ones((0, 3), np.float32), "e6m9", report=True)
    assert out.shape == (2, 3)
    assert {getattr(report, name) for name in COUNTS} == {0}


@pytest.mark.parametrize("text", ["e6m9 lanes=2", "e6m9 order=pairwise", "exact output=e6m9"])
def test_products_that_float64_cannot_hold_are_an_error(text):
    third = np.full((1, 1), 1 / 3)
    with pytest.raises(ValueError, match=r"must fit 53 bits, got 53 \+ 53"):
        matmul(third, third, text)
