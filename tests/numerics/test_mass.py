"""Thousands of dot products of every kind of accumulator, bit for bit those of the definition.

The judge is `oracles.integers`, plain Python integers, itself compared with the rationals. Operands are
random and adversarial: near ties, near overflow, cancelling, chains of subnormals; lengths 0, 1 and about the
chunk. Every run has a fast share; the whole, marked slow, is above 10**5 dot products of each kind.
"""

import os
import subprocess
import sys
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np
import pytest

import numerics
from numerics import (
    Accumulator,
    FusedAdder,
    IntegerAccumulator,
    Rounding,
    cast,
    matmul,
    parse_accumulator,
    parse_format,
    register_codes,
)
from oracles import integers
from oracles.orders import BINARY32
from oracles.rational import DETERMINISTIC
from oracles.strategies import draw_operands

ROUNDINGS = (*DETERMINISTIC, "stochastic:1", "stochastic:9", "stochastic", "nearest-even")
LENGTHS = (0, 1, 2, 6, 7, 8, 13, 14, 15, 23, 33, 40)  # about chunks of 7
FAST, WHOLE = 6_000, 100_000
ROWS, COLUMNS = 11, 7

# Registers of a few bits and of many, with and without infinities and subnormals.
FORMATS = (
    "e6m9", "e5m10", "e8m7", "e5m2", "e4m3fn", "e8m23", "e4m3-flush", "e8m13", "e6m5b20", "e5m6none",
    "e4m0fn", "e5m10-flush", "e6m3",
)  # fmt: skip
PAIRS = (("e4m3fn", "e4m3fn"), ("e5m2", "e4m3fn"), ("fp16", "e2m1"), ("e5m2", "e5m2"), ("bf16", "e3m2"))


# Operands, (m, k) and (k, n). Beside those of `draw_operands`, some for the format of the register.


def near_ties(rng, fmt, m, k, n):
    """A value of the register, then halves of its last place, a little more or less than halves, and back."""
    exponent = rng.integers(max(1 - fmt.bias, -60), min(60, 2**fmt.exp_bits - 3 - fmt.bias) + 1, (m, 1))
    whole = rng.integers(1 << fmt.frac_bits, 2 << fmt.frac_bits, (m, 1)) * rng.choice([-1.0, 1.0], (m, 1))
    last = 2.0 ** (exponent - fmt.frac_bits)
    parts = rng.choice([0.5, -0.5, 0.5, 0.25, 1.0, 1.5, 0.75], (m, k)) + rng.choice(
        [0.0, 0.0, 2.0**-10, -(2.0**-10), 2.0**-22, -(2.0**-22)], (m, k)
    )
    a = last * parts
    a[:, :: max(2, k // 2)] = (whole * last)[:, : a[:, :: max(2, k // 2)].shape[1]]
    return a, 2.0 ** rng.integers(-1, 2, (k, n)) * rng.choice([1.0, 1.0, -1.0], (k, n))


def near_overflow(rng, fmt, m, k, n):
    """The largest value and its fractions, half of its last place among them, of both signs."""
    top, last = min(fmt.max, 2.0**100), 2.0**-fmt.frac_bits
    shares = [1.0, 0.5, 0.5, 0.25, last / 2, last, last * 0.49, last * 0.51, 0.75]
    a = top * rng.choice(shares, (m, k)) * rng.choice([1.0, 1.0, 1.0, -1.0], (m, k))
    return a, rng.choice([1.0, 1.0, 0.5, -1.0], (k, n)) * np.ones((k, n))


def subnormal_chains(rng, fmt, m, k, n):
    """Quarters of the least unit of the register, up to a few of them, and the smallest normal number."""
    least = max(fmt.min_subnormal, 2.0**-100)
    a = least * rng.choice([0.25, 0.5, 0.5, 0.75, 1.0, 1.5, -0.5, -0.25, -1.0, 0.5 + 2.0**-12], (m, k))
    if fmt.subnormals:
        a[rng.random((m, k)) < 0.1] = 2.0**fmt.frac_bits * least / 2
    return a, rng.choice([1.0, 1.0, -1.0, 0.5], (k, n)) * np.ones((k, n))


def cancelling(rng, fmt, m, k, n):
    """Large numbers and then their negatives, with small ones between."""
    a, b = near_ties(rng, fmt, m, k, n)
    half = k // 2
    if half:
        a[:, -half:], b[-half:] = -a[:, :half], b[:half]
    return a, b


HARD = (near_ties, near_overflow, subnormal_chains, cancelling)
SOFT = ("normal", "cancel", "huge", "tiny", "positive", "powers", "sparse", "mixed")


def hard_operands(kind, rng, fmt, k, columns=COLUMNS):
    a, b = kind(rng, fmt, ROWS, k, columns)
    # 24 and two bits; products are those of a fused multiply-add, wider than most registers.
    return a.astype(np.float32), b.astype(np.float32)


def soft_operands(kind, rng, fmt, k, columns=COLUMNS, pairs=PAIRS):
    left, right = pairs[int(rng.integers(len(pairs)))]
    return draw_operands(rng, left, right, kind, ROWS, k, columns)


SOURCES = [partial(hard_operands, kind) for kind in HARD] * 2 + [
    partial(soft_operands, kind) for kind in SOFT
]


def all_terms(a, b, *formats):
    """(places, products of each row and column): integers in units of products and registers."""
    half = integers.places_of(a)
    places = max(half + integers.places_of(b), *[-integers.least_place(fmt) for fmt in formats], 0)
    left, right = integers.as_integers(a, half), integers.as_integers(b.T, places - half)
    terms = ([integers.multiplied(p, q) for p, q in zip(x, y, strict=True)] for x, y in product(left, right))
    return places, terms


def formats_in(acc):
    return [acc.format, acc.product or acc.format, acc.outer.format if acc.outer else acc.format]


def expected_of(a, b, summed, acc, formats, seed):
    """Row by row, with the words of stream 1."""
    places, terms = all_terms(a, b, *formats)
    total, words = summed(acc, places), integers.Words(seed, 1)
    return [integers.as_float(total(row, words.of(i)), places) for i, row in enumerate(terms)]


def check(found, expected):
    """Equal numbers, and -0 where the last sum was negative and underflowed."""
    found, expected = found.ravel().astype(np.float64), np.array(expected, np.float64)
    np.testing.assert_array_equal(found, expected)
    minus = (expected == 0) & np.signbit(expected)
    assert np.signbit(found[minus]).all()
    return len(expected), int(minus.sum())


def run(count, seed, judge, sources=SOURCES):
    """Judge products until they are `count`: of all lengths and sources, each with the next accumulator."""
    rng = np.random.default_rng(seed)
    done = minus = number = 0
    settings = list(product(sources, LENGTHS))
    while done < count:
        for index in rng.permutation(len(settings)):
            source, length = settings[index]
            more, zeros = judge(number, rng, source, length)
            done, minus, number = done + more, minus + zeros, number + 1
            if done >= count:
                break
    return done, minus


def float_judge(number, rng, source, length, accumulators, columns=COLUMNS):
    """One product under the next of the accumulators."""
    acc = next(accumulators)
    a, b = source(rng, acc.format, length, columns)
    expected = expected_of(a, b, integers.float_sum, acc, formats_in(acc), number)
    return check(matmul(a, b, acc, seed=number, stream=1), expected)


def exact_judge(number, rng, source, length, accumulators):
    acc = next(accumulators)
    a, b = source(rng, acc.output, length)
    expected = expected_of(a, b, integers.exact_sum, acc, [acc.output], number)
    return check(matmul(a, b, acc, seed=number, stream=1), expected)


def endless(options, formats=FORMATS):
    """Accumulators of every format and rounding with the options, in turn; the options in turn, too."""
    every = list(product(formats, ROUNDINGS))
    order = np.random.default_rng(0).permutation(len(every))
    texts = (every[i] for i in cycle(order.tolist()))
    for (fmt, rounding), chosen in zip(texts, cycle(options), strict=False):
        yield parse_accumulator(f"{chosen.format(fmt=fmt)} rounding={rounding}")


KINDS = {
    "sequential": ["{fmt}"],
    "chunked": ["{fmt} chunk=7", "{fmt} chunk=1", "{fmt} chunk=14", "{fmt} chunk=39"],
    "product": [
        "{fmt} product=e5m2", "{fmt} product=e4m3fn chunk=7", "{fmt} product=e5m7",
        "{fmt} product=e8m7-flush",
    ],
    "outer": [
        "{fmt} chunk=7 outer=e8m23", "{fmt} chunk=7 outer=e6m9/toward-zero", "{fmt} chunk=1 outer=e5m2",
        "{fmt} chunk=14 outer=e8m13/stochastic:5", "{fmt} chunk=100 outer=e4m3fn/down",
    ],
    "lanes": [
        "{fmt} lanes=2", "{fmt} lanes=7", "{fmt} lanes=3 chunk=7", "{fmt} lanes=4 product=e5m7",
        "{fmt} lanes=40",
    ],
    "pairwise": ["{fmt} order=pairwise", "{fmt} order=pairwise chunk=7", "{fmt} order=pairwise product=e5m7"],
    "exact": ["exact output={fmt}"],
}  # fmt: skip


def of_kind(kind, count, seed):
    judge = exact_judge if kind == "exact" else float_judge
    return run(count, seed, partial(judge, accumulators=endless(KINDS[kind])))


@pytest.mark.parametrize("kind", KINDS)
def test_six_thousand_dot_products_of_each_kind(kind):
    done, _ = of_kind(kind, FAST, 1)
    assert done >= FAST


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_dot_products_of_each_kind(kind):
    done, minus = of_kind(kind, WHOLE, 2)
    assert done >= WHOLE
    assert minus > 0


# One register of each arithmetic of plain sums, and rows enough that tiles are filled and rounded in each.


@pytest.mark.parametrize("options", [["{fmt}"], ["{fmt} chunk=7"]], ids=["sequential", "chunked"])
def test_wide_products_fill_the_tiles(options):
    accumulators = endless(options, ("e6m9", "e5m10", "e8m13", "e8m5", "e8m22"))
    done, _ = run(FAST, 3, partial(float_judge, accumulators=accumulators, columns=37))
    assert done >= FAST


@pytest.mark.slow
@pytest.mark.parametrize("options", [["{fmt}"], ["{fmt} chunk=7"]], ids=["sequential", "chunked"])
def test_a_hundred_thousand_wide_products_fill_the_tiles(options):
    accumulators = endless(options, ("e6m9", "e5m10", "e8m13", "e8m5", "e8m22"))
    done, _ = run(WHOLE, 4, partial(float_judge, accumulators=accumulators, columns=37))
    assert done >= WHOLE


def test_hard_operands_are_hard():
    rng = np.random.default_rng(0)
    fmt = parse_format("e5m6")
    counts = {}
    for kind in HARD:
        a, b = hard_operands(kind, rng, fmt, 23)
        even, report = matmul(a, b, Accumulator(fmt), report=True)
        away = matmul(a, b, Accumulator(fmt, rounding="nearest-away"))
        finite = np.isfinite(even)
        counts[kind.__name__] = report, (even != away)[finite].mean() if finite.any() else 0.0
    assert counts["near_ties"][1] > 0.3  # of the sums tell a tie to even from one away
    assert counts["cancelling"][1] > 0.1
    assert counts["near_overflow"][0].overflow > 30
    assert counts["subnormal_chains"][0].underflow > 200


# Matrix units.

UNITS = (
    "volta", "turing", "ampere", "hopper-fp16", "hopper-fp8", "ada-fp8", "hopper-fp8 promote=32",
    "ada-fp8 promote=32", "volta promote=8", "volta output=e5m10 rounding=nearest-even",
    "fused products=7 align_bits=9 output=e8m5 rounding=up",
    "fused products=7 align_bits=12 output=e5m2 promote=7",
    "fused products=1 align_bits=3 output=e8m23 rounding=down", "fused products=4 align_bits=2 output=e4m3fn",
    "fused products=8 align_bits=20 output=e8m7 rounding=to-odd halves=true",
    "fused products=7 align_bits=30 output=e8m13 rounding=nearest-away",
)  # fmt: skip
UNIT_PAIRS = (("e4m3fn", "e4m3fn"), ("e5m2", "e4m3fn"), ("fp16", "fp16"), ("bf16", "bf16"), ("e2m1", "e5m2"))


def unit_judge(number, rng, source, length, units):
    adder = FusedAdder.parse(next(units))
    left, right = UNIT_PAIRS[int(rng.integers(len(UNIT_PAIRS)))]
    formats = [parse_format(left), parse_format(right)]
    a, b = source(rng, adder.output, length)
    if number % 3 == 0:  # a spread of exponents that the alignment cuts, an end of the range of the operands
        a = a * 2.0 ** rng.integers(-8, 9, a.shape)
    a, b = (
        cast(x.astype(np.float32), fmt, overflow="saturate") for x, fmt in zip((a, b), formats, strict=True)
    )
    half = max(integers.places_of(a), integers.places_of(b), 75)  # twice that: binary32 too
    total = integers.fused_sum(adder, formats, 2 * half, (BINARY32, Rounding.NEAREST_EVEN))
    rows, columns = (
        [
            list(zip(*pair, strict=True))
            for pair in zip(integers.as_integers(x, half), x.tolist(), strict=True)
        ]
        for x in (a, b.T)
    )
    found = matmul(a, b, adder, formats=(left, right))
    expected = [integers.as_float(total(x, y), 2 * half) for x, y in product(rows, columns)]
    return check(found, expected)


def test_six_thousand_dot_products_of_matrix_units():
    done, _ = run(FAST, 5, partial(unit_judge, units=cycle(UNITS)))
    assert done >= FAST


@pytest.mark.slow
def test_a_hundred_thousand_dot_products_of_matrix_units():
    done, _ = run(WHOLE, 6, partial(unit_judge, units=cycle(UNITS)))
    assert done >= WHOLE


# Integer registers.

REGISTERS = {
    "saturating": [
        "int8", "int12 chunk=7", "int12 chunk=7 outer=int15", "int9 chunk=7 outer=int8", "int16", "int24",
        "int32", "int48", "s7.4 rounding={mode}", "s9.2 rounding={mode} chunk=7", "s3.4 rounding={mode}",
    ],
    "wrapping": [
        "int8-wrap", "int12-wrap chunk=7", "int12-wrap chunk=7 outer=int15-wrap",
        "int15-wrap chunk=7 outer=int8-wrap", "int16-wrap", "int24-wrap", "int32-wrap", "int48-wrap",
        "s7.4-wrap rounding={mode}",
        "s9.2-wrap rounding={mode} chunk=7", "s3.4-wrap rounding={mode}",
    ],
}  # fmt: skip


def integer_operands(rng, acc, length):
    """Codes whose products are about as wide as the register: ends often, with halves where it rounds."""
    width = max(2, (acc.bits + int(rng.integers(-4, 3))) // 2 + (acc.rounding is not None))
    width, places = min(width, 26), 0 if acc.rounding is None else (acc.frac_bits + 3) // 2
    low, high = -(1 << (width - 1)), 1 << (width - 1)
    operands = []
    for shape in ((ROWS, length), (length, COLUMNS)):
        codes = rng.integers(low, high, shape)
        ends = rng.choice([low, high - 1, 0, 1, -1], shape)
        operands.append(np.ldexp(np.where(rng.random(shape) < 0.3, ends, codes).astype(float), -places))
    if rng.random() < 0.3 and length > 1:  # to one end and back
        half = length // 2
        operands[0][:, -half:], operands[1][-half:] = -operands[0][:, :half], operands[1][:half]
    return operands


def register_judge(number, rng, _, length, accumulators):
    acc = next(accumulators)
    a, b = integer_operands(rng, acc, length)
    if number % 2 and abs(a).max(initial=0) < 2**20:
        a, b = a.astype(np.float32), b.astype(np.float32)
    places, terms = all_terms(a, b)
    total = integers.register_sum(acc, places)
    expected = np.array([total(row) for row in terms]).reshape(len(a), -1)
    np.testing.assert_array_equal(register_codes(a, b, acc)[0], expected)
    np.testing.assert_array_equal(matmul(a, b, acc), np.ldexp(expected.astype(float), -acc.frac_bits))
    return expected.size, 0


def registers(kind):
    for text, mode in zip(cycle(REGISTERS[kind]), cycle([*DETERMINISTIC, "nearest-even"]), strict=False):
        yield IntegerAccumulator.parse(text.format(mode=mode))


@pytest.mark.parametrize("kind", REGISTERS)
def test_six_thousand_dot_products_of_integers(kind):
    done, _ = run(FAST, 7, partial(register_judge, accumulators=registers(kind)), sources=(None,) * 8)
    assert done >= FAST


@pytest.mark.slow
@pytest.mark.parametrize("kind", REGISTERS)
def test_a_hundred_thousand_dot_products_of_integers(kind):
    done, _ = run(WHOLE, 8, partial(register_judge, accumulators=registers(kind)), sources=(None,) * 8)
    assert done >= WHOLE


# Infinities and NaNs among the operands.


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exact"])
def test_infinities_and_nans_of_the_operands_reach_the_result_of_every_kind(kind):
    rng = np.random.default_rng(9)
    accumulators = endless(KINDS[kind])
    for number, length in enumerate(islice(cycle(LENGTHS[1:]), 60)):
        acc = next(accumulators)
        a, b = soft_operands("normal", rng, acc.format, length)
        for x in (a, b):
            hit = rng.random(x.shape) < 0.05
            x[hit] = rng.choice([np.inf, np.inf, -np.inf, np.nan], hit.sum())
        expected = expected_of(a, b, integers.float_sum, acc, formats_in(acc), number)
        found = matmul(a, b, acc, seed=number, stream=1)
        np.testing.assert_array_equal(found.ravel(), expected)


# Threads and the compiler.

PROGRAM = """
import hashlib, sys
import numpy as np
from numerics import cast, matmul

size = int(sys.argv[1])
rng = np.random.default_rng(0)
x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((size, size + 3), (size + 3, size + 1)))
a, b = cast(x, "e4m3fn"), cast(y, "e5m2")
for text in (
    "e6m9", "e6m9 chunk=8", "e5m2 rounding=up", "e8m22 rounding=to-odd", "e4m3fn rounding=nearest-away",
    "e6m9 rounding=stochastic", "e6m9 chunk=8 rounding=stochastic:5", "e4m3-flush rounding=stochastic:20",
    "e6m9 product=e5m2", "e6m9 chunk=8 outer=e8m23/toward-zero", "e6m9 lanes=4 rounding=stochastic:3",
    "e6m9 order=pairwise rounding=stochastic", "exact output=e6m9", "exact output=e5m2 rounding=stochastic",
):
    print(text, hashlib.sha256(matmul(a, b, text, seed=3, stream=4).tobytes()).hexdigest())
other = "fused products=4 align_bits=9 output=e5m2 rounding=up"
for text in ("volta", "hopper-fp8", "ada-fp8 promote=32", other):
    found = matmul(a, b, text, formats=("e4m3fn", "e5m2"))
    print(text, hashlib.sha256(found.tobytes()).hexdigest())
whole = np.round(4 * a), np.round(4 * b)
for text in ("int8", "int8-wrap", "int10 chunk=8 outer=int12", "int10-wrap chunk=9 outer=int8-wrap"):
    print(text, hashlib.sha256(matmul(*whole, text).tobytes()).hexdigest())
print("s3.4", hashlib.sha256(matmul(a, b, "s3.4 rounding=down").tobytes()).hexdigest())
for rounding in ("nearest-even", "up", "stochastic", "stochastic:9"):
    for text in ("e5m2", "e4m3-flush", "s3.4", "e5m2fnuz"):
        print(text, rounding, hashlib.sha256(cast(x, text, rounding=rounding, seed=2).tobytes()).hexdigest())
"""


def printed(size, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(size)],
        env=os.environ | {"PYTHONWARNINGS": "ignore"} | environment,
        cwd=Path(numerics.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 39
    return lines


def test_one_thread_and_two_give_the_same_bits():
    # 8 * 10**6 multiply-adds: enough for all the kernels that divide their work.
    assert printed(202, NUMBA_NUM_THREADS="1") == printed(202, NUMBA_NUM_THREADS="2")


def test_kernels_without_the_compiler_give_the_same_bits():
    assert printed(7, NUMBA_DISABLE_JIT="1") == printed(7, NUMBA_DISABLE_JIT="0")
