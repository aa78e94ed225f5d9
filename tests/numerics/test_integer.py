"""Integer accumulators: registers of Python integers, and widths by trying the worst operands."""

import os
import subprocess
import sys
from fractions import Fraction
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numerics
from numerics import FloatFormat, Report, threads
from numerics.integer import IntegerAccumulator, integer, is_integer, register_codes
from numerics.widths import exact_sum_bits, overflow_free_bits, overflow_free_bits_for_weights

ROUNDINGS = ("nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd")


def to_integer(x, places, rounding):
    """``x / 2**places`` rounded to an integer; ``None`` wants it exact."""
    below, rest = divmod(x, 2**places)
    if rest == 0:
        return below
    assert rounding is not None
    twice = 2 * rest - 2**places  # against half a unit
    return (
        below
        + {
            "nearest-even": twice > 0 or (twice == 0 and below % 2 == 1),
            "nearest-away": twice > 0 or (twice == 0 and x > 0),
            "toward-zero": x < 0,
            "down": False,
            "up": True,
            "to-odd": below % 2 == 0,
        }[rounding]
    )


def as_integers(x):
    """(rows of Python integers, places): the elements times ``2**places``."""
    ratios = [[float(value).as_integer_ratio() for value in row] for row in x]
    places = max((q.bit_length() - 1 for row in ratios for _, q in row), default=0)
    return [[p << (places + 1 - q.bit_length()) for p, q in row] for row in ratios], places


def fit(x, bits, overflow):
    """(the integer in a register, whether it was out of its range)."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if low <= x <= high:
        return x, 0
    if overflow == "saturate":
        return (low if x < low else high), 1
    while x > high:
        x -= 2**bits * max(1, (x - high) // 2**bits)
    while x < low:
        x += 2**bits * max(1, (low - x) // 2**bits)
    return x, 1


def judge_dot(products, acc):
    """(register, additions, additions out of range) of integer products in a register of Python integers."""
    chunk = acc.chunk or max(1, len(products))
    starts = range(0, len(products), chunk)
    total = additions = events = 0
    for first in starts:
        register = 0
        for term in products[first : first + chunk]:
            register, beyond = fit(register + term, acc.bits, acc.overflow)
            additions, events = additions + 1, events + beyond
        if len(starts) == 1 and acc.outer is None:
            return register, additions, events
        total, beyond = fit(total + register, acc.outer or acc.bits, acc.overflow)
        additions, events = additions + 1, events + beyond
    return total, additions, events


def judge(a, b, acc):
    """(int64 registers, report) of ``a @ b``."""
    (left, left_places), (right, right_places) = as_integers(a), as_integers(b.T)
    places = left_places + right_places - acc.frac_bits
    lift, places = max(0, -places), max(0, places)
    rounding = None if acc.rounding is None else acc.rounding.mode.value
    result = np.zeros((len(a), b.shape[1]), np.int64)
    additions = events = 0
    for i, j in np.ndindex(result.shape):
        terms = [
            to_integer((x * y) << lift, places, rounding) for x, y in zip(left[i], right[j], strict=True)
        ]
        result[i, j], more, beyond = judge_dot(terms, acc)
        additions, events = additions + more, events + beyond
    name = "saturation" if acc.overflow == "saturate" else "overflow"
    return result, Report(additions=additions, **{name: events})


def agrees(a, b, acc):
    """Registers, counts and values are those of the judge, counted or not."""
    codes, report = judge(a, b, acc)
    fast, nothing = register_codes(a, b, acc)
    counted, counts = register_codes(a, b, acc, counting=True)
    np.testing.assert_array_equal(fast, codes)
    np.testing.assert_array_equal(counted, codes)
    assert (counts, nothing) == (report, Report())
    if np.all(abs(codes.astype(float)) < 2.0**53):
        values = integer(a, b, acc)[0]
        assert values.dtype == acc.dtype
        np.testing.assert_array_equal(values, np.ldexp(codes.astype(float), -acc.frac_bits))
        assert not np.signbit(values[values == 0]).any()


def draw(rng, shape, bits, frac_bits, dtype):
    """Operands of `bits` signed bits in units of ``2**-frac_bits``, ends of the range often."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    codes = rng.integers(low, high, shape)
    codes = np.where(rng.random(shape) < 0.2, rng.choice([low, high - 1, 0], shape), codes)
    return np.ldexp(codes.astype(np.float64), -frac_bits).astype(dtype)


@st.composite
def accumulators(draw_, *, rounded=False):
    bits = draw_(st.integers(2, 64))
    frac_bits = draw_(st.just(0) | st.integers(0, bits - 1))
    chunk = draw_(st.none() | st.integers(1, 12))
    outer = None if chunk is None else draw_(st.none() | st.integers(max(2, frac_bits + 1), 64))
    return IntegerAccumulator(
        bits,
        frac_bits=frac_bits,
        overflow=draw_(st.sampled_from(["saturate", "wrap"])),
        chunk=chunk,
        outer=outer,
        rounding=draw_(st.sampled_from(ROUNDINGS)) if rounded else None,
    )


def operand_bits(rng, acc, limit):
    """Bits of two operands whose products are about as wide as the register."""
    total = int(np.clip(acc.bits + rng.integers(-5, 4), 2, limit))
    first = int(np.clip(rng.integers(1, total), total - 53, 53))
    return first, total - first


shapes = st.tuples(st.integers(1, 3), st.integers(0, 36), st.sampled_from([1, 2, 3, 17]))


@settings(max_examples=300)
@given(acc=accumulators(), shape=shapes, seed=st.integers(0, 2**63 - 1))
def test_every_element_is_the_register_after_its_last_addition(acc, shape, seed):
    rng = np.random.default_rng(seed)
    m, k, n = shape
    wide_a, wide_b = operand_bits(rng, acc, 62)
    frac_a = int(rng.integers(0, acc.frac_bits + 1))
    dtypes = [np.float32 if bits <= 24 else np.float64 for bits in (wide_a, wide_b)]
    a = draw(rng, (m, k), wide_a, frac_a, dtypes[0])
    b = draw(rng, (k, n), wide_b, acc.frac_bits - frac_a, dtypes[1])
    agrees(a, b, acc)


@settings(max_examples=250)
@given(acc=accumulators(rounded=True), shape=shapes, seed=st.integers(0, 2**63 - 1))
def test_rounded_products_are_added_as_the_integers_they_round_to(acc, shape, seed):
    rng = np.random.default_rng(seed)
    m, k, n = shape
    wide_a, wide_b = operand_bits(rng, acc, 50)
    frac_a = int(rng.integers(-3, acc.frac_bits + 8))
    frac_b = acc.frac_bits - frac_a + int(rng.integers(0, 4))
    a, b = draw(rng, (m, k), wide_a, frac_a, np.float64), draw(rng, (k, n), wide_b, frac_b, np.float64)
    if wide_a <= 24 and wide_b <= 24:
        a, b = a.astype(np.float32), b.astype(np.float32)
    agrees(a, b, acc)


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", range(2, 65))
def test_every_width_clamps_and_wraps_at_its_own_ends(bits, overflow):
    # Sums that stop at either end, one short of it and one beyond it.
    half = 2.0 ** ((bits - 2) // 2), 2.0 ** (bits - 2 - (bits - 2) // 2)  # of the range, as a product
    a = np.array([[1, 1, -1, 1, 1], [1, 1, 1, -1, -1], [-1, -1, 1, -1, -1]])
    a[:, [0, 1, 4]] = a[:, [0, 1, 4]] * half[0]
    b = np.array([[half[1], -half[1]], [half[1], -half[1]], [1, 1], [1, 1], [half[1], half[1]]])
    acc = IntegerAccumulator(bits, overflow=overflow)
    agrees(a, b, acc)
    assert judge(a, b, acc)[1] != Report(additions=30)  # some did go beyond


@pytest.mark.parametrize(
    "text", ["int9", "int9-wrap", "s4.4 rounding=nearest-even", "s4.4-wrap rounding=down"]
)
@pytest.mark.parametrize("outer", ["", "int8", "int12"])
def test_lengths_around_the_chunk(text, outer):
    head, *rest = text.split()
    if outer:
        bits = int(outer[3:])
        suffix = "-wrap" if "wrap" in head else ""
        outer = f"outer=int{bits}{suffix}" if head.startswith("int") else f"outer=s{bits - 5}.4{suffix}"
    acc = IntegerAccumulator.parse(" ".join([head, "chunk=7", outer, *rest]))
    rng = np.random.default_rng(7)
    share = 16.0 if acc.rounding else 1.0
    for length in (0, 1, 6, 7, 8, 13, 14, 15):
        a, b = (rng.integers(-15, 16, shape) / share for shape in ((3, length), (length, 18)))
        agrees(a.astype(np.float32), b.astype(np.float32), acc)


@pytest.mark.parametrize(
    "text",
    [
        "int12", "int12-wrap", "int12 chunk=16", "int12 chunk=16 outer=int15",
        "int12-wrap chunk=16 outer=int15-wrap", "s7.4", "s7.4-wrap", "s9.2 rounding=toward-zero",
        "s9.2-wrap rounding=down", "s9.2 rounding=nearest-even", "int30", "int50-wrap",
    ],
)  # fmt: skip
def test_two_thousand_dot_products_of_each_kind(text):
    acc = IntegerAccumulator.parse(text)
    rng = np.random.default_rng(12)
    scale = 4.0 if acc.frac_bits else 2.0 ** max(0, acc.bits - 12)
    left, right = (4.0, 4.0) if acc.frac_bits else (1.0, 1.0 / scale)
    a = rng.integers(-63, 64, (46, 37)) / left
    b = rng.integers(-63, 64, (37, 46)) / right
    codes, report = judge(a, b, acc)
    assert codes.size >= 2000
    assert report.saturation + report.overflow > 1000
    np.testing.assert_array_equal(register_codes(a, b, acc)[0], codes)
    assert register_codes(a, b, acc, counting=True)[1] == report
    np.testing.assert_array_equal(integer(a, b, acc)[0] * 2.0**acc.frac_bits, codes)


@settings(max_examples=150)
@given(
    bits=st.integers(2, 53),
    length=st.integers(1, 60),
    chunk=st.none() | st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_a_wrapped_sum_that_fits_is_right_whatever_its_prefixes_did(bits, length, chunk, seed):
    rng = np.random.default_rng(seed)
    there = rng.integers(0, 2 ** (bits - 1), length, endpoint=True).astype(float)
    rest = float(rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    a = np.concatenate([there, [rest], -there[rng.permutation(length)]])[None, :]
    acc = IntegerAccumulator(bits, overflow="wrap", chunk=chunk)
    assert integer(a, np.ones((a.size, 1)), acc)[0] == rest


@given(bits=st.integers(2, 20), seed=st.integers(0, 2**32))
def test_no_order_of_a_wrapped_sum_matters(bits, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-99, 100, (2, 30)).astype(float), rng.integers(-99, 100, (30, 17)).astype(float)
    turn = rng.permutation(30)
    acc = IntegerAccumulator(bits, overflow="wrap")
    np.testing.assert_array_equal(integer(a, b, acc)[0], integer(a[:, turn], b[turn], acc)[0])


def test_by_hand():
    def total(terms, text):
        return float(
            integer(np.array([terms], float), np.ones((len(terms), 1)), IntegerAccumulator.parse(text))[0][
                0, 0
            ]
        )

    # The order matters to a register that saturates, and not to one that wraps.
    assert total([100, 100, -100], "int8") == 27.0
    assert total([100, -100, 100], "int8") == 100.0
    assert total([100, 100, -100], "int8-wrap") == total([100, -100, 100], "int8-wrap") == 100.0
    assert total([100, 100], "int8-wrap") == 200 - 256
    assert total([-100, -100], "int8") == -128.0
    # Each chunk of two starts from zero and saturates alone.
    assert total([100, 100, 100, 100, 1], "int8 chunk=2 outer=int10") == 127 + 127 + 1
    assert total([100, 100, 100, 100, 1], "int8-wrap chunk=2 outer=int10-wrap") == -56 - 56 + 1
    assert total([100, 100, 100, 100, 1], "int8 chunk=2") == 127.0
    # One chunk still passes the outer register.
    assert total([100, 100], "int9 chunk=4 outer=int8") == 127.0
    # Fixed point: steps of 1/16, from -8 to 7.9375; products cut before they are added.
    assert total([7.5, 0.5, 0.5], "s3.4") == 7.9375
    assert total([1 / 32, 1 / 32, -1 / 32], "s3.4 rounding=toward-zero") == 0.0
    assert total([1 / 32, 1 / 32, -1 / 32], "s3.4 rounding=down") == -1 / 16
    assert total([1 / 32, 3 / 32, -1 / 32], "s3.4 rounding=nearest-even") == 1 / 8
    # A product wider than the register is added whole, and the sum fitted.
    assert total([-100, 1000], "int8") == 127.0
    assert total([-100, 1000], "int8-wrap") == 900 - 4 * 256 + 0.0


def test_sums_reach_the_ends_of_64_bits():
    up, down = np.full((1, 4), 2.0**62), np.full((1, 4), -(2.0**62))
    ones = np.ones((4, 1))
    codes = [int(register_codes(x, ones, IntegerAccumulator(64))[0][0, 0]) for x in (up, down)]
    assert codes == [2**63 - 1, -(2**63)]
    assert register_codes(up[:, :3], ones[:3], IntegerAccumulator(64, overflow="wrap"))[0] == -(2**62)
    assert integer(down, ones, IntegerAccumulator(64))[0] == -(2.0**63)


@pytest.mark.parametrize(("bits", "dtype"), [(25, np.float32), (26, np.float64)])
def test_results_are_float32_while_it_holds_the_register(bits, dtype):
    ends = np.array([[2.0 ** (bits - 1)], [-(2.0 ** (bits - 1))]])
    for acc in (IntegerAccumulator(bits), IntegerAccumulator(9, chunk=1, outer=bits)):
        result = integer(ends, np.ones((1, 1)), acc)[0]
        assert result.dtype == acc.dtype == dtype
    assert integer(ends, np.ones((1, 1)), IntegerAccumulator(bits))[0].tolist() == [
        [2.0 ** (bits - 1) - 1],
        [-(2.0 ** (bits - 1))],
    ]
    assert integer(np.ones((3, 0)), np.ones((0, 2)), IntegerAccumulator(bits))[0].dtype == dtype


def test_columns_and_rows_that_agree_need_no_common_unit():
    # 2**-80 meets 2**80, 2**70 meets zeros only: every product is an integer of few bits.
    a = np.array([[3 * 2.0**-80, 2.0**70, 5.0], [2.0**-79, -(2.0**70), 2.0**50]])
    b = np.array([[2.0**80, 3 * 2.0**80], [0.0, 0.0], [1.0, -1.0]])
    for text in ("int5", "int5-wrap", "int60", "s9.3", "s9.3 rounding=up"):
        agrees(a, b, IntegerAccumulator.parse(text))
    agrees(a[:1].astype(np.float32), b.astype(np.float32), IntegerAccumulator.parse("int5"))


def test_subnormal_operands_are_integers_too():
    a = np.array([[2.0**-1074, 3 * 2.0**-1074], [2.0**-1060, 2.0**-1030]])
    b = np.array([[2.0**1020], [-(2.0**1021)]])
    agrees(a, b, IntegerAccumulator(64, frac_bits=54))
    agrees(
        (a * 2.0**925).astype(np.float32),
        (b * 2.0**-900).astype(np.float32),
        IntegerAccumulator(40, frac_bits=29),
    )


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_a_product_just_beside_an_integer_or_a_tie_is_not_rounded_twice(rounding, overflow):
    # (1 - 2**-13) (1 + 2**-13) = 1 - 2**-26 is 1 in float32; 2**-200 is 0; 2**120 * 2**10 is infinite.
    cases = [
        ([1 - 2.0**-13, 0.5 + 2.0**-14], [1 + 2.0**-13, 1 - 2.0**-13], 0),
        ([2.0**-100, -(2.0**-100)], [2.0**-100, 2.0**-99], 0),
        ([2.0**-120, 2.0**-132], [2.0**119, 3 * 2.0**120], 10),
        ([1 - 2.0**-26, 0.5 + 2.0**-27], [1 + 2.0**-25, 1 - 2.0**-26], 3),
    ]
    for left, right, frac_bits in cases:
        a, b = np.array([left, [-x for x in left]]), np.array([right]).T
        acc = IntegerAccumulator(16, frac_bits=frac_bits, overflow=overflow, rounding=rounding)
        for dtype in (np.float32, np.float64):
            if np.array_equal(a.astype(dtype), a) and np.array_equal(b.astype(dtype), b):
                agrees(a.astype(dtype), b.astype(dtype), acc)


@pytest.mark.parametrize(
    "text", ["int14", "int14 chunk=100", "int14-wrap chunk=100 outer=int20-wrap", "int40"]
)
def test_memory_layout_threads_and_blocks_of_columns_change_nothing(text):
    rng = np.random.default_rng(5)
    a = rng.integers(-60, 61, (61, 300)).astype(np.float32)
    b = rng.integers(-60, 61, (300, 1100)).astype(np.float32)
    if text == "int40":
        a, b = a * 2.0**14, b * 2.0**14
    acc = IntegerAccumulator.parse(text)
    expected = register_codes(a, b, acc)[0]
    try:
        for count in (1, 3):
            threads.limit(count)
            strided = register_codes(a.T.copy().T, np.repeat(b, 2, 1)[:, ::2], acc)[0]
            np.testing.assert_array_equal(strided, expected)
            np.testing.assert_array_equal(register_codes(a, b, acc, counting=True)[0], expected)
            np.testing.assert_array_equal(register_codes(b.T, a.T, acc)[0].T, expected)
    finally:
        threads.limit(None)
    columns = [0, 511, 512, 1024, 1099]
    np.testing.assert_array_equal(register_codes(a, b[:, columns], acc)[0], expected[:, columns])
    np.testing.assert_array_equal(judge(a[:2], b[:, columns], acc)[0], expected[:2, columns])


def test_a_report_counts_what_was_clamped_or_wrapped():
    a, ones = np.array([[100.0, 100.0, -100.0, -100.0, -100.0]]), np.ones((5, 1))
    counts = {
        text: integer(a, ones, IntegerAccumulator.parse(text), counting=True)[1]
        for text in ("int8", "int8-wrap", "int8 chunk=2", "int32", "int32 chunk=5 outer=int9", "int8 chunk=9")
    }
    assert counts["int8"] == Report(additions=5, saturation=2)
    assert counts["int8-wrap"] == Report(additions=5, overflow=2)
    assert counts["int8 chunk=2"] == Report(additions=8, saturation=2)
    assert counts["int32"] == Report(additions=5)
    assert counts["int32 chunk=5 outer=int9"] == Report(additions=6)
    assert counts["int8 chunk=9"] == counts["int8"]
    zeros = integer(np.zeros((2, 3)), np.ones((3, 4)), IntegerAccumulator(8), counting=True)
    assert zeros[1] == Report(additions=24)
    assert not zeros[0].any()


@given(acc=accumulators() | accumulators(rounded=True))
def test_text_reads_back(acc):
    assert IntegerAccumulator.parse(str(acc)) == IntegerAccumulator.parse(acc) == acc
    assert is_integer(str(acc))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("int32", "int32"),
        ("s31.0", "int32"),
        ("INT16-wrap", "int16-wrap"),
        ("s15.8 rounding=down", "s15.8 rounding=down"),
        ("s0.7", "s0.7"),
        ("int24 outer=int32 chunk=64", "int24 chunk=64 outer=int32"),
        ("int24 chunk=64 outer=int24", "int24 chunk=64"),
        ("s7.8-wrap chunk=4 outer=s23.8-wrap", "s7.8-wrap chunk=4 outer=s23.8-wrap"),
    ],
)
def test_texts_print_in_one_way(text, printed):
    assert str(IntegerAccumulator.parse(text)) == printed


def test_other_accumulators_have_other_texts():
    texts = [
        "e6m9",
        "e4m3fn chunk=4",
        "ue4m3fn",
        "volta",
        "fused products=4",
        "exact output=e8m23",
        "",
        "bf16",
        "s",
    ]
    assert not any(is_integer(text) for text in texts)
    assert all(is_integer(text) for text in ["int8", "uint8", " s3.4-wrap chunk=2", "u3.4"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "integer register must be int<bits> or s<int>.<frac>.*got ''"),
        ("uint8", "signed.*got 'uint8'"),
        ("u3.4", "signed.*got 'u3.4'"),
        ("int8-clip", "got 'int8-clip'"),
        ("int1", r"bits must be in 2\.\.64, got 1"),
        ("int65", r"bits must be in 2\.\.64, got 65"),
        ("s60.4", r"bits must be in 2\.\.64, got 65"),
        ("int8 chunk=0", "chunk must be at least 1, got 0"),
        ("int8 chunk=x", "chunk must be a whole number, got 'x'"),
        ("int8 outer=int9", "outer=9 needs chunk=<n>"),
        ("int8 chunk=4 outer=e8m23", "outer must be int<bits>.*got 'e8m23'"),
        ("int8 chunk=4 outer=int65", r"outer must be in 2\.\.64 bits with frac_bits 0, got 65"),
        ("int8 chunk=4 outer=s7.1", "fraction bits and the overflow of int8, got 's7.1'"),
        ("int8-wrap chunk=4 outer=int9", "fraction bits and the overflow of int8-wrap, got 'int9'"),
        ("int8 lanes=4", "options are chunk, outer, rounding .*got 'lanes'"),
        ("int8 rounding=stochastic:4", "deterministically, got rounding stochastic:4"),
        ("int8 rounding=nearest", "rounding must be one of .*got 'nearest'"),
    ],
)
def test_a_bad_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        IntegerAccumulator.parse(text)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 8.0}, TypeError, "bits must be an integer, got 8.0"),
        ({"bits": True}, TypeError, "bits must be an integer, got True"),
        ({"bits": 8, "frac_bits": 8}, ValueError, r"frac_bits must be in 0\.\.7 with 8 bits, got 8"),
        ({"bits": 8, "frac_bits": -1}, ValueError, r"frac_bits must be in 0\.\.7 with 8 bits, got -1"),
        ({"bits": 8, "frac_bits": None}, TypeError, "frac_bits must be an integer, got None"),
        ({"bits": 8, "overflow": "clamp"}, ValueError, "overflow must be saturate or wrap, got 'clamp'"),
        ({"bits": 8, "chunk": 2.5}, TypeError, "chunk must be an integer or None, got 2.5"),
        ({"bits": 8, "chunk": 2, "outer": "int9"}, TypeError, "outer must be an integer or None, got 'int9'"),
        (
            {"bits": 8, "frac_bits": 6, "chunk": 2, "outer": 6},
            ValueError,
            r"outer must be in 7\.\.64 .*got 6",
        ),
    ],
)
def test_a_bad_attribute_is_named(options, error, message):
    with pytest.raises(error, match=message):
        IntegerAccumulator(**options)


@pytest.mark.parametrize(
    ("text", "a", "b", "message"),
    [
        ("int8", [[1, 2], [np.nan, 1]], [[1], [1]], r"a must hold finite numbers, got nan at \[1, 0\]"),
        ("int8", [[1, 2], [1, 1]], [[1], [-np.inf]], r"b must hold finite numbers, got -inf at \[1, 0\]"),
        (
            "int8",
            [[1, 2], [3, 0.5]],
            [[0.5, 1], [4, 1]],
            r"multiples of 2\*\*-0, the unit of int8, or be rounded .*a\[0, 0\] \* b\[0, 0\] = 1.0 \* 0.5",
        ),
        ("s3.4", [[1, 0.25]], [[1], [0.125]], r"the unit of s3.4.*a\[0, 1\] \* b\[1, 0\] = 0.25 \* 0.125"),
        (
            "int64",
            [[1, 2.0**31], [1, -(2.0**32)]],
            [[1, 1], [2.0**30, 2.0**31]],
            r"products must be below 2\*\*63 units of int64, got a\[1, 1\] \* b\[1, 1\] = -4.2",
        ),
        ("s3.4", [[2.0**30]], [[2.0**29]], r"below 2\*\*63 units of s3.4, got a\[0, 0\] \* b\[0, 0\]"),
        ("int8", [[1e300]], [[1e300]], r"below 2\*\*63 units of int8"),
        ("int8 rounding=up", [[1 + 2.0**-26]], [[1 - 2.0**-27]], r"fit 53 bits, got 27 \+ 27 significand"),
        ("int8 rounding=up", [[2.0**-600]], [[2.0**-600]], "range of float64, got magnitudes up to 2.4"),
        ("s3.60 rounding=up", [[2.0**-1035]], [[2.0**970]], "in the range of float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("counting", [False, True])
def test_a_bad_operand_is_named_with_its_place(text, a, b, message, counting):
    a, b = np.array(a, np.float64), np.array(b, np.float64)
    for compute in (integer, register_codes):
        with pytest.raises(ValueError, match=message):
            compute(a, b, IntegerAccumulator.parse(text), counting=counting)


def test_float32_operands_that_are_not_finite_are_named_too():
    a = np.ones((2, 3), np.float32)
    a[1, 2] = np.inf
    with pytest.raises(ValueError, match=r"b must hold finite numbers, got inf at \[2, 1\]"):
        integer(np.ones((1, 3), np.float32), a.T, IntegerAccumulator(8))


def test_a_result_beyond_float64_is_an_error_and_has_a_code():
    a, b = np.array([[1.0, 2.0**53 + 2, 1.0]]), np.ones((3, 1))
    acc = IntegerAccumulator(60)
    assert register_codes(a, b, acc)[0] == 2**53 + 4
    assert integer(a, b, acc)[0] == 2.0**53 + 4
    with pytest.raises(
        ValueError, match=r"at most 53 bits.*got 9007199254740995 units of 2\*\*-0 at \[0, 0\]"
    ):
        integer(a[:, :2], b[:2], acc)


SMALL_CASE = """
import numba
import numpy as np
from numerics.integer import IntegerAccumulator, register_codes

rng = np.random.default_rng(0)
a, b = (rng.integers(-40, 41, shape) / 4.0 for shape in ((3, 19), (19, 4)))
print(numba.config.DISABLE_JIT)
for text in ("s4.4", "s4.4-wrap", "s4.4 chunk=4 outer=s5.4", "s4.4-wrap chunk=4 outer=s5.4-wrap", "s59.4", "s4.4-wrap chunk=9"):
    for x, y in ((a, b), (a.astype(np.float32), b.astype(np.float32)), (a * 2.0**26, b * 2.0**26)):
        codes, report = register_codes(x, y, IntegerAccumulator.parse(text), counting=True)
        print(register_codes(x, y, IntegerAccumulator.parse(text))[0].tobytes().hex())
        print(codes.tobytes().hex(), str(report).replace(" ", ""))
for mode in ("nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd"):
    for text in ("s5.2", "s5.2-wrap chunk=4", "s5.2-wrap chunk=4 outer=s9.2-wrap"):
        for x, y in ((a, b), (a.astype(np.float32), b.astype(np.float32))):
            print(register_codes(x, y, IntegerAccumulator.parse(f"{text} rounding={mode}"))[0].tobytes().hex())
"""  # noqa: E501


def test_the_compiler_changes_no_bit_and_no_count():
    lines = {}
    for disable in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SMALL_CASE],
            env=os.environ | {"NUMBA_DISABLE_JIT": disable},
            cwd=Path(numerics.__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        lines[disable] = done.stdout.split()
    assert [lines[key][0] for key in ("0", "1")] == ["0", "1"]
    assert len(lines["0"]) == 1 + 3 * 18 + 36
    assert lines["0"][1:] == lines["1"][1:]


def least_bits(low, high):
    """Bits of the smallest two's-complement register that holds both."""
    return next(bits for bits in range(1, 99) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1))


def integers(bits, signed):
    return range(-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else range(2**bits)


@pytest.mark.parametrize("signed", [True, False])
def test_overflow_free_bits_hold_the_worst_sum_and_signed_ones_need_all_of_them(signed):
    for n, m, length in product(range(1, 7), range(1, 7), (1, 2, 3, 4, 5, 7, 8, 9, 100)):
        products = [x * w for x in integers(n, signed) for w in integers(m, True)]
        needed = least_bits(length * min(products), length * max(products))
        bits = overflow_free_bits(length, n, m, signed_activations=signed)
        if signed:
            assert bits == needed
        else:
            assert needed <= bits <= needed + (1 if min(n, m) > 1 else 2)


def test_overflow_free_bits_by_hand():
    # The published example: 4608 products of signed 8-bit operands.
    assert overflow_free_bits(4608, 8, 8) == 28
    assert overflow_free_bits(4608, 8, 8, signed_activations=False) == 29
    assert overflow_free_bits(1, 8, 8) == 16  # (-128)**2 = 2**14 needs 15 bits and a sign
    assert overflow_free_bits_for_weights(np.full((4608, 2), -128, np.int8), 8).tolist() == [28, 28]
    assert overflow_free_bits_for_weights(np.zeros((3, 1)), 8).tolist() == [1]
    assert overflow_free_bits_for_weights(np.zeros((0, 2)), 8).tolist() == [1, 1]
    assert overflow_free_bits_for_weights(np.array([[-(2**62), 2**54 - 1], [2**62, 0]]), 2).tolist() == [
        66,
        56,
    ]


@given(seed=st.integers(0, 2**32), signed=st.booleans(), bits=st.integers(1, 3), length=st.integers(1, 4))
def test_bits_for_weights_hold_the_sums_of_all_activations(seed, signed, bits, length):
    weights = np.random.default_rng(seed).integers(-9, 10, (length, 3))
    found = overflow_free_bits_for_weights(weights, bits, signed_activations=signed)
    for n in range(3):
        sums = [
            sum(x * int(w) for x, w in zip(xs, weights[:, n], strict=True))
            for xs in product(integers(bits, signed), repeat=length)
        ]
        needed = least_bits(min(sums), max(sums))
        assert needed <= found[n] <= needed + 3
        if signed and all(weights[:, n] < 0):  # all activations at their least value
            assert found[n] == needed


@given(seed=st.integers(0, 2**32), bits=st.integers(2, 5))
def test_a_register_of_the_bits_for_weights_never_clamps(seed, bits):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-20, 21, (50, 2))
    x = rng.choice([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], (8, 50)).astype(float)
    for n, width in enumerate(overflow_free_bits_for_weights(weights, bits)):
        acc = IntegerAccumulator(max(2, int(width)))
        assert integer(x, weights[:, n : n + 1].astype(float), acc, counting=True)[1].saturation == 0


def small_values(fmt):
    return [Fraction(v) for v in fmt.values()]


def test_exact_sum_bits_hold_the_largest_sum_of_minifloats():
    assert exact_sum_bits("e2m3", "e2m3", 4608) == 26
    assert exact_sum_bits(FloatFormat.parse("e4m3fn"), "e4m3", 4608) == 50
    texts = [
        "e2m3",
        "e3m2",
        "e2m1",
        "e4m3",
        "e5m2",
        "e3m0none",
        "e1m2none",
        "e3m2-flush",
        "ue3m2none",
        "hfp8",
        "e4m3fnuz",
    ]
    for left, right in product(texts, texts):
        formats = [FloatFormat.parse(text) for text in (left, right)]
        values = [small_values(fmt) for fmt in formats]
        units = [min(abs(x - y) for x, y in zip(v[1:], v[:-1], strict=True)) for v in values]
        if "-flush" in left or "-flush" in right:  # the gap around zero is not the least one
            assert all(x % u == 0 for v, u in zip(values, units, strict=True) for x in v)
        largest = prod(max(v) / u for v, u in zip(values, units, strict=True))
        assert largest.denominator == 1
        for length in (1, 2, 3, 5, 8, 4608):
            bits = exact_sum_bits(left, right, length)
            needed = least_bits(-length * int(largest), length * int(largest))
            assert needed <= bits <= needed + 3
    # Where no code is lost to infinities: 2**ea + ma + 2**eb + mb + ceil(log2 K) - 1.
    assert exact_sum_bits("e3m2", "e2m1", 5) == 8 + 2 + 4 + 1 + 3 - 1


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ((0, 8, 8), ValueError, "length must be at least 1, got 0"),
        ((8, 0, 8), ValueError, "activation_bits must be at least 1, got 0"),
        ((8, 8, -1), ValueError, "weight_bits must be at least 1, got -1"),
        ((8.0, 8, 8), TypeError, "length must be an integer, got 8.0"),
        ((8, True, 8), TypeError, "activation_bits must be an integer, got True"),
    ],
)
def test_a_bad_number_of_bits_is_named(numbers, error, message):
    with pytest.raises(error, match=message):
        overflow_free_bits(*numbers)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(3), ValueError, r"weights must be of shape \(k, n\), got \(3,\)"),
        ([[1]], TypeError, "weights must be an array of numbers, got list"),
        (np.array([["1"]]), TypeError, "weights must be an array of numbers, got <U1"),
        (np.array([[1], [0.5]]), ValueError, r"weights must be integers, got 0.5 at \[1, 0\]"),
        (np.array([[np.inf]]), ValueError, r"weights must be integers, got inf at \[0, 0\]"),
    ],
)
def test_bad_weights_are_named(weights, error, message):
    with pytest.raises(error, match=message):
        overflow_free_bits_for_weights(weights, 8)


def test_a_bad_format_of_an_exact_sum_is_named():
    with pytest.raises(TypeError, match="format_b must be a FloatFormat or its text, got 8"):
        exact_sum_bits("e4m3", 8, 3)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        exact_sum_bits("e4m3", "e4m3", 0)
    with pytest.raises(ValueError, match=r"got 's3\.4'"):
        exact_sum_bits("s3.4", "e4m3", 3)
