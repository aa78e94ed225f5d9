"""The judge in integers and the judge of whole arrays find what the rationals find."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import Accumulator, ExactAccumulator, FusedAdder, Rounding, parse_format
from oracles import integers
from oracles.grid import numbers_of_codes, round_to_grid, same
from oracles.orders import BINARY32, Rounder, fused_rational, sum_rational
from oracles.philox import sum_draws
from oracles.rational import DETERMINISTIC, round_rational
from oracles.strategies import (
    ACCUMULATORS,
    ALL_SPECIALS,
    KINDS,
    STOCHASTIC_TEXTS,
    draw_operands,
    float_formats,
    formats,
    hard_values,
)

roundings = st.sampled_from(DETERMINISTIC) | STOCHASTIC_TEXTS


def same_number(found, expected):
    same([found], [expected])


@settings(max_examples=300)
@given(
    fmt=float_formats(signed=True, families=ALL_SPECIALS),
    rounding=roundings,
    seed=st.integers(0, 2**32),
    element=st.integers(0, 2**34),
    number=st.integers(0, 2**34),
)
def test_integers_are_rounded_as_rationals_are(fmt, rounding, seed, element, number):
    rounding = Rounding.parse(rounding)
    x = hard_values(fmt, np.random.default_rng(seed), 12)
    places = 400
    x = [Fraction(value) for value in x if value * 2.0**places == int(value * 2.0**places)]
    once = integers.rounder(fmt, rounding, places)
    draw = sum_draws(seed, 5, rounding.random_bits)(element, number) if rounding.is_stochastic else None
    word = integers.Words(seed, 5).of(element)
    for value in x:
        found = integers.as_float(once(int(value * 2**places), word, number), places)
        expected = round_rational(value, fmt, rounding.mode.value, draw=draw)
        same_number(found, expected)


@settings(max_examples=200)
@given(
    left=st.sampled_from(["e4m3fn", "e5m2", "bf16"]),
    fmt=st.sampled_from(ACCUMULATORS),
    product=st.none() | st.sampled_from(ACCUMULATORS),
    outer=st.none() | st.sampled_from(ACCUMULATORS),
    order=st.sampled_from(["sequential", "pairwise", "lanes"]),
    chunk=st.none() | st.integers(1, 26),
    rounding=roundings,
    kind=st.sampled_from(KINDS),
    length=st.integers(0, 24),
    special=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_sums_of_integers_are_those_of_rationals(
    left, fmt, product, outer, order, chunk, rounding, kind, length, special, seed
):
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(2, 6)) if order == "lanes" else 1
    acc = Accumulator(
        fmt,
        rounding=rounding,
        product=product,
        chunk=chunk,
        outer=outer if chunk else None,
        lanes=lanes,
        order="pairwise" if order == "pairwise" else "sequential",
    )
    a, b = draw_operands(rng, left, "e4m3fn", kind, 1, length, 1)
    if special and length:
        a[0, rng.integers(length)] = rng.choice([np.inf, -np.inf, np.nan])
    places = 300
    terms = [
        integers.multiplied(x, y)
        for x, y in zip(
            integers.as_integers(a, 150)[0], integers.as_integers(b.T, 150)[0] if length else [], strict=True
        )
    ]
    found = integers.float_sum(acc, places)(terms, integers.Words(seed, 3).of(7))
    rounder = Rounder(lambda bits: partial(sum_draws(seed, 3, bits), 7))
    expected = sum_rational(a[0].tolist(), b[:, 0].tolist(), acc, rounder)
    np.testing.assert_array_equal(integers.as_float(found, places), expected)


@settings(max_examples=100)
@given(
    products=st.integers(1, 9),
    align=st.integers(1, 30),
    output=st.sampled_from(["e8m23", "e8m13", "fp16", "bf16", "e5m2", "e4m3fn"]),
    promote=st.none() | st.integers(1, 3),
    mode=st.sampled_from(DETERMINISTIC),
    kind=st.sampled_from(KINDS),
    length=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_fused_sums_of_integers_are_those_of_rationals(
    products, align, output, promote, mode, kind, length, seed
):
    adder = FusedAdder(
        products=products,
        align_bits=align,
        output=output,
        rounding=mode,
        promote=promote and promote * products,
    )
    texts = ("e4m3fn", "fp16")
    pair = [parse_format(text) for text in texts]
    a, b = draw_operands(np.random.default_rng(seed), *texts, kind, 1, length, 1)
    rows = [
        list(zip(integers.as_integers(x[None], 100)[0], x.tolist(), strict=True)) for x in (a[0], b[:, 0])
    ]
    found = integers.fused_sum(adder, pair, 200, (BINARY32, Rounding.NEAREST_EVEN))(*rows)
    expected = fused_rational(
        a[0].tolist(),
        b[:, 0].tolist(),
        pair,
        block=products,
        align_bits=align,
        output=adder.output,
        mode=mode,
        promote=adder.promote,
    )
    np.testing.assert_array_equal(integers.as_float(found, 200), expected)


@given(output=st.sampled_from(ACCUMULATORS), rounding=roundings, seed=st.integers(0, 2**32))
def test_an_exact_sum_of_integers_is_the_rational_sum(output, rounding, seed):
    acc = ExactAccumulator(output, rounding=rounding)
    a, b = draw_operands(np.random.default_rng(seed), "e5m2", "e5m2", "mixed", 1, 9, 1)
    terms = [x * y for x, y in zip(*(integers.as_integers(v, 150)[0] for v in (a, b.T)), strict=True)]
    exact = sum(
        (Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[0], b[:, 0], strict=True)), Fraction(0)
    )
    draw = sum_draws(seed, 0, acc.rounding.random_bits)(2, 0) if acc.rounding.is_stochastic else None
    found = integers.exact_sum(acc, 300)(terms, integers.Words(seed).of(2))
    same_number(
        integers.as_float(found, 300), round_rational(exact, acc.output, acc.rounding.mode.value, draw=draw)
    )


@settings(max_examples=200)
@given(
    fmt=formats().filter(lambda f: f.bits <= 12 and getattr(f, "overflow", "") != "wrap"),
    mode=st.sampled_from([*DETERMINISTIC, "stochastic"]),
    overflow=st.sampled_from(["format", "saturate"]),
    seed=st.integers(0, 2**32),
)
def test_arrays_are_rounded_as_rationals_are(fmt, mode, overflow, seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([hard_values(fmt, rng, 30), [np.inf, -np.inf, np.nan, 0.0, -0.0]])
    x = x.astype(np.float32).astype(float) if abs(x[:30]).max() < 1e38 else x
    words = rng.integers(0, 8, x.shape)
    draws = [(3, int(word)) if mode == "stochastic" else None for word in words]
    expected = [
        round_rational(float(value), fmt, mode, overflow=overflow, draw=draw)
        for value, draw in zip(x, draws, strict=True)
    ]
    same(round_to_grid(x, fmt, mode, overflow, draw=(3, words)), expected)


@pytest.mark.parametrize(
    ("text", "codes", "numbers"),
    [
        ("e4m3fn", [0x00, 0x01, 0x08, 0x38, 0x7E, 0x7F, 0x80], [0, 2.0**-9, 2.0**-6, 1, 448, math.nan, -0.0]),
        ("e5m2", [0x7B, 0x7C, 0x7D, 0xFC], [57344, math.inf, math.nan, -math.inf]),
        ("e4m3fnuz", [0x7F, 0x80, 0x81], [240, math.nan, -(2.0**-10)]),
        ("binary8p3", [0x7E, 0x7F, 0x80, 0xFF], [49152, math.inf, math.nan, -math.inf]),
        ("e4m3-flush", [0x07, 0x08], [0, 2.0**-6]),
        ("s3.4", [0x7F, 0x80, 0xFF], [7.9375, -8, -0.0625]),
        ("ue4m4", [0x10, 0xFF], [2.0**-6, math.nan]),
    ],
)
def test_numbers_of_codes_by_hand(text, codes, numbers):
    same(numbers_of_codes(parse_format(text))[codes], numbers)
