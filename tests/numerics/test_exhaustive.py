"""Everything that can be tried: all codes, all patterns, all products, all pairs of small numbers.

The judges are the list of all values of a format (`oracles.grid`), float64 where it is exact, and plain
integers where it is not.
"""

import itertools
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from numerics import Accumulator, FloatFormat, Rounding, cast, decode, encode, matmul, parse_format
from oracles.grid import (
    Located,
    all_codes,
    finite_values,
    fixed_formats_of,
    float_formats_of,
    is_unused,
    numbers_of_codes,
    round_to_grid,
    same,
)
from oracles.integers import Words, as_float, as_integers, float_sum, rounder
from oracles.philox import cast_digits, philox4x32, stream_key
from oracles.rational import DETERMINISTIC, neighbours, round_rational
from oracles.strategies import ALL_SPECIALS

STOCHASTIC = ("stochastic:1", "stochastic:3")
FAMILIES = (*ALL_SPECIALS, "fixed")
QUIET = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy: a NaN that signals
EIGHT_BITS = [
    "e4m3fn", "e5m2", "e4m3ieee", "e3m4", "hfp8", "e4m3fnuz", "e5m2fnuz", "binary8p3", "binary8p4", "int8",
]  # fmt: skip


def formats_of(bits, family, **options):
    if family == "fixed":
        return list(fixed_formats_of(bits))
    return list(float_formats_of(bits, specials=(family,), **options))


# All codes.


@pytest.mark.parametrize("bits", range(9, 17))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_code_of_every_format_of_nine_to_sixteen_bits_comes_back(family, bits):
    found = formats_of(bits, family)
    assert len(found) >= 12  # eight splits or so, with and without subnormals
    for fmt in found:
        codes, numbers, message = all_codes(fmt), numbers_of_codes(fmt), str(fmt)
        kept = ~np.isnan(numbers) & ~is_unused(fmt)
        same(decode(codes, fmt, np.float64), numbers, message)
        values = decode(codes, fmt)
        same(values, numbers, message)
        encoded = encode(values[kept], fmt)
        assert encoded.dtype == codes.dtype
        np.testing.assert_array_equal(encoded, codes[kept], err_msg=message)
        np.testing.assert_array_equal(encode(numbers[kept], fmt), codes[kept], err_msg=message)


@pytest.mark.parametrize("bits", range(3, 13))
def test_every_code_comes_back_with_the_lowest_and_the_highest_bias(bits):
    biases = set()
    for fmt in float_formats_of(bits, extremes=True):
        biases.add(fmt.bias)
        codes, numbers = all_codes(fmt), numbers_of_codes(fmt)
        kept = ~np.isnan(numbers) & ~is_unused(fmt)
        values = decode(codes, fmt)
        same(values, numbers, str(fmt))
        np.testing.assert_array_equal(encode(values[kept], fmt), codes[kept], err_msg=str(fmt))
    assert min(biases) < -100
    assert max(biases) > 130


@pytest.mark.parametrize("bits", range(3, 17))
def test_the_code_of_nan_is_a_code_of_nan(bits):
    nans = np.array([np.nan, -np.nan], np.float32)
    for fmt in float_formats_of(bits):
        if fmt.specials != "none":
            codes = encode(nans, fmt)
            assert np.isnan(numbers_of_codes(fmt)[codes]).all(), str(fmt)


# All patterns.


def all_patterns(dtype):
    """All of binary16 or bfloat16 as float32, NaNs and infinities too."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    if dtype == "float16":
        return patterns.view(np.float16).astype(np.float32)
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def cast_words(count, bits, seed):
    """The random numbers of the elements of a cast: 16 bits each, eight of a counter."""
    block = np.arange(count // 8, dtype=np.uint64)
    zero = np.zeros_like(block)
    digits = np.stack([half for word in philox4x32((zero, zero, block, zero), stream_key(seed, 0))
                       for half in (word & 0xFFFF, word >> 16)], 1).ravel()  # fmt: skip
    assert [int(v) for v in digits[:19]] == [cast_digits(i, 0, seed, 0) for i in range(19)]
    return (digits >> (16 - bits)).astype(float)


def round_wrapping(x, fmt, mode, draw):
    """Round float64 without ends and take the remainder by the range; all of it is exact in float64."""
    finite = np.isfinite(x)
    units = np.where(finite, np.ldexp(np.abs(x), fmt.frac_bits), 0.0)
    low = np.floor(units)
    share, negative = units - low, np.signbit(x)
    up = {
        "nearest-even": (share > 0.5) | ((share == 0.5) & (low % 2 == 1)),
        "nearest-away": share >= 0.5,
        "toward-zero": np.zeros(x.shape, bool),
        "down": negative & (share > 0),
        "up": ~negative & (share > 0),
        "to-odd": (share > 0) & (low % 2 == 0),
        "stochastic": np.floor(share * 2.0 ** draw[0]) + draw[1] >= 2.0 ** draw[0],
    }[mode]
    whole, first = np.where(negative, -1.0, 1.0) * (low + up), -(2.0 ** (fmt.bits - 1)) * fmt.signed
    wrapped = np.mod(whole - first, 2.0**fmt.bits) + first
    return np.where(finite, np.ldexp(wrapped, -fmt.frac_bits), np.nan) + 0.0


def check_cast(x, wide, fmt, roundings, words):
    """Cast `x`, whose values are those of the float64 `wide`, in each rounding, and judge it."""
    wraps = getattr(fmt, "overflow", "saturate") == "wrap"
    located = None if wraps else Located(wide, fmt)
    for rounding in roundings:
        mode, _, bits = rounding.partition(":")
        draw = (int(bits), words[bits]) if bits else (1, 0)
        expected = round_wrapping(wide, fmt, mode, draw) if wraps else located.rounded(mode, draw=draw)
        same(cast(x, fmt, rounding=rounding, seed=11), expected, f"{fmt} {rounding}")


@pytest.fixture(scope="module")
def words():
    return {str(bits): cast_words(1 << 16, bits, 11) for bits in (1, 3)}


@QUIET
@pytest.mark.parametrize("family", FAMILIES)
def test_every_float16_is_rounded_to_every_8_bit_format_in_every_mode(family, words):
    found = formats_of(8, family)
    assert len(found) >= 14
    x = all_patterns("float16")
    wide = x.astype(np.float64)
    for fmt in found:
        check_cast(x, wide, fmt, (*DETERMINISTIC, *STOCHASTIC), words)


@QUIET
@pytest.mark.parametrize("text", ["e4m3fn", "e5m2", "e2m1", "e4m3-flush", "s3.4", "e5m2fnuz", "binary8p4"])
def test_every_pattern_of_float16_is_rounded_alike_in_float16_float32_and_float64(text):
    x = all_patterns("float16")
    half = x.astype(np.float16)
    for rounding in (*DETERMINISTIC, *STOCHASTIC, "stochastic"):
        expected = cast(x, text, rounding=rounding, seed=3)
        same(cast(x.astype(np.float64), text, rounding=rounding, seed=3), expected)
        same(cast(half, text, rounding=rounding, seed=3), expected)


@QUIET
@pytest.mark.parametrize(
    "text",
    [
        "e4m3fn",
        "e5m2",
        "e4m3fnuz",
        "binary8p3",
        "e2m1",
        "e8m2",
        "e6m9",
        "e5m10",
        "e8m5",
        "e6m9-flush",
        "e8m0fn",
    ],
)
def test_every_bfloat16_is_rounded_as_the_list_of_values_says(text, words):
    x, fmt = all_patterns("bfloat16"), parse_format(text)
    wide = x.astype(np.float64)
    check_cast(x, wide, fmt, (*DETERMINISTIC, *STOCHASTIC), words)
    check_cast(wide, wide, fmt, (*DETERMINISTIC, *STOCHASTIC), words)


@pytest.mark.parametrize("text", ["e5m10", "e6m9", "e8m7", "dlfloat16", "e6m9-flush", "s7.8"])
def test_every_tie_and_value_of_a_16_bit_format_and_their_float32_neighbours(text):
    check_ties(parse_format(text), np.float32, ["nearest-even", "nearest-away", "down"])


def check_ties(fmt, dtype, modes=DETERMINISTIC):
    """Values, ties and quarters of the whole range and a binade beyond, and the numbers just beside them."""
    values = finite_values(fmt).astype(dtype)
    values = values[values >= 0].astype(np.float64)
    gaps = np.concatenate([np.diff(values), [values[-1] - values[-2]]])
    points = np.concatenate(
        [(values[:, None] + gaps[:, None] * [0.0, 0.25, 0.5, 0.75]).ravel(), 2 * values[-40:]]
    )
    with np.errstate(over="ignore", under="ignore"):
        points = points.astype(dtype)
        points = points[np.isfinite(points)]
        x = np.concatenate([points, np.nextafter(points, dtype(0)), np.nextafter(points, dtype(np.inf))])
    x = x[np.isfinite(x)]
    x = np.concatenate([x, -x])
    check_cast(x, x.astype(np.float64), fmt, modes, None)


@pytest.mark.parametrize("family", ALL_SPECIALS)
def test_every_tie_of_every_8_bit_format_and_its_neighbours_in_every_mode(family):
    for fmt in formats_of(8, family):
        check_ties(fmt, np.float32)
        # Neighbours in float64 differ from small values by numbers that float64 holds: Sterbenz.
        check_ties(fmt, np.float64)


@QUIET
def test_nans_of_every_sign_and_small_payload_stay_nan_in_every_8_bit_format():
    payloads = [0x7F800001, 0x7F800002, 0x7FBFFFFF, 0x7FC00000, 0x7FC00001, 0x7FFFFFFF]
    bits = np.array([p | sign for p in payloads for sign in (0, 1 << 31)], np.uint32)
    for fmt in [*float_formats_of(8), *fixed_formats_of(8)]:
        for rounding in ("nearest-even", "up", "stochastic:3"):
            assert np.isnan(cast(bits.view(np.float32), fmt, rounding=rounding, seed=1)).all(), str(fmt)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("e5m2", np.float16),
        ("e5m2", np.float32),
        ("e4m3fn", np.float64),
        ("s3.4", np.float32),
        ("binary8p3", np.float64),
        ("e5m2fnuz", np.float64),
    ],
)
def test_a_signalling_nan_is_cast_without_a_warning(text, dtype):
    pattern = {np.float16: 0x7C01, np.float32: 0x7F800001, np.float64: 0x7FF0000000000001}[dtype]
    kind = {np.float16: np.uint16, np.float32: np.uint32, np.float64: np.uint64}[dtype]
    assert np.isnan(cast(np.full(3, pattern, kind).view(dtype), text)).all()


# All products.


def special_product(a, b):
    with np.errstate(invalid="ignore"):
        return a[:, None] * b[None, :]


def operand(text):
    """All 256 values of the codes of a format."""
    return numbers_of_codes(parse_format(text))


@pytest.mark.parametrize(("left", "right"), list(itertools.product(EIGHT_BITS, EIGHT_BITS)))
def test_all_products_of_a_pair_of_8_bit_formats_are_exact(left, right):
    a, b = operand(left).astype(np.float32), operand(right).astype(np.float32)
    # Eight bits of significand at most, and exponents far inside of those of float32.
    expected = special_product(a.astype(np.float64), b.astype(np.float64))
    for text in (
        "e8m23",
        "e8m23 rounding=down",
        "e8m23 order=pairwise",
        "exact output=e8m23",
        "e8m15 product=e8m15",
    ):
        same_products(matmul(a[:, None], b[None, :], text), expected)


def same_products(found, expected):
    """Equal, but for the sign of a product that is exactly zero: a sum begins with +0."""
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("left", "right"),
    list(itertools.combinations_with_replacement([t for t in EIGHT_BITS if t != "int8"], 2)),
)
def test_all_products_of_a_pair_of_8_bit_formats_are_rounded_once_in_every_mode(left, right):
    a, b = operand(left).astype(np.float32), operand(right).astype(np.float32)
    exact = special_product(a.astype(np.float64), b.astype(np.float64))
    for text in ("e6m9", "e5m2", "e4m3fn"):
        fmt = parse_format(text)
        located = Located(exact, fmt)
        for mode in DETERMINISTIC:
            expected = located.rounded(mode)
            found = matmul(a[:, None], b[None, :], Accumulator(fmt, rounding=mode))
            same_products(found, expected)


@pytest.mark.parametrize("text", ["int8", "int12", "int16", "int8-wrap", "int12-wrap"])
def test_all_products_of_int8_in_a_register(text):
    x = operand("int8")
    exact = (x[:, None] * x[None, :]).astype(np.int64)
    bits = int(text.removesuffix("-wrap")[3:])
    half = 1 << (bits - 1)
    expected = (exact + half) % (2 * half) - half if "wrap" in text else np.clip(exact, -half, half - 1)
    np.testing.assert_array_equal(matmul(x[:, None], x[None, :], text), expected)


@pytest.mark.parametrize(
    ("left", "right"),
    list(
        itertools.combinations_with_replacement(
            ["e4m3fn", "e5m2", "e4m3ieee", "e3m4", "hfp8", "binary8p4"], 2
        )
    ),
)
def test_all_products_of_a_pair_of_8_bit_formats_in_matrix_units(left, right):
    a, b = (operand(text) for text in (left, right))
    a, b = (x[np.isfinite(x)].astype(np.float32) for x in (a, b))
    exact = special_product(a.astype(np.float64), b.astype(np.float64))
    # A lone product is cut 13 bits or more below the exponents of its operands added; it has at most 10.
    for text in ("hopper-fp8", "ada-fp8", "volta", "hopper-fp16"):
        same_products(matmul(a[:, None], b[None, :], text, formats=(left, right)), exact)


# All pairs of small numbers.
#
# A dot product of (x, y) with (1, 1) rounds x, then the sum. The numbers of every format of up to six bits,
# with its usual bias, are among those of one of these:
OPERANDS = [
    *[FloatFormat(exp_bits=e, frac_bits=5 - e, specials="none") for e in range(1, 6)],
    *[FloatFormat(exp_bits=e, frac_bits=6 - e, specials="none", signed=False) for e in range(1, 7)],
    *[FloatFormat(exp_bits=e, frac_bits=5 - e, specials="fnuz") for e in range(1, 6)],
    *[fmt for fmt in fixed_formats_of(6) if fmt.overflow == "saturate"],
]
WIDEST = FloatFormat(exp_bits=6, frac_bits=0, specials="none", signed=False)  # 62 binades: not for float64
ACCUMULATORS = [
    fmt
    for bits in range(2, 9)
    for fmt in float_formats_of(bits, specials=("ieee", "fn", "none", "fused-top"), signs=(True,))
]


def test_the_operands_stand_for_every_format_of_up_to_six_bits():
    sets = [set(finite_values(fmt).tolist()) for fmt in OPERANDS]
    count = 0
    for bits in range(1, 7):
        for fmt in [*float_formats_of(bits), *fixed_formats_of(bits)]:
            values = set(finite_values(fmt).tolist())
            assert any(values <= known for known in sets), str(fmt)
            count += 1
    assert count > 250


def test_every_format_of_up_to_eight_bits_that_an_accumulator_takes_is_tried():
    taken = 0
    for bits in range(1, 9):
        for fmt in float_formats_of(bits):
            try:
                Accumulator(fmt)
            except ValueError:
                continue
            assert fmt in ACCUMULATORS
            taken += 1
    assert taken == len(ACCUMULATORS) == len(set(ACCUMULATORS)) > 150


def pairs_of(fmt):
    values = finite_values(fmt)
    return np.stack([np.repeat(values, len(values)), np.tile(values, len(values))], 1)


@cache
def random_of_pairs(count, bits, seed):
    """Random numbers of both additions of so many outputs."""
    words = Words(seed)
    return [np.array([words.of(i)(number, 0) for i in range(count)]) >> (32 - bits) for number in (0, 1)]


def check_pairs(operands, accumulators, roundings):
    """Each pair of numbers of an operand, in each register and rounding."""
    tried = 0
    for source in operands:
        pairs = pairs_of(source)
        rows, ones = pairs.astype(np.float32), np.ones((2, 1), np.float32)
        for rounding in roundings:
            mode, _, bits = rounding.partition(":")
            draws = [None, None]
            if bits:
                draws = [(int(bits), word) for word in random_of_pairs(len(pairs), int(bits), 9)]
            for fmt in accumulators:
                first = round_to_grid(pairs[:, 0], fmt, mode, draw=draws[0])
                with np.errstate(invalid="ignore"):
                    total = first + pairs[:, 1]
                expected = round_to_grid(total, fmt, mode, draw=draws[1])
                found = matmul(rows, ones, Accumulator(fmt, rounding=rounding), seed=9)[:, 0]
                np.testing.assert_array_equal(found, expected, err_msg=f"{source} {fmt} {rounding}")
                tried += len(pairs)
    return tried


NARROW = [fmt for fmt in OPERANDS if fmt != WIDEST]


@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic:1", "stochastic:2"])
def test_pairs_of_small_numbers_in_small_accumulators(rounding):
    # A tenth of the combinations, every operand and every accumulator among them.
    for offset in range(10):
        check_pairs(NARROW[offset::10], ACCUMULATORS[offset::10], [rounding])


@pytest.mark.slow
@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic:1", "stochastic:2", "stochastic:5"])
@pytest.mark.parametrize("part", range(4))
def test_all_pairs_of_numbers_of_up_to_six_bits_in_all_accumulators_of_up_to_eight(rounding, part):
    tried = check_pairs(NARROW, ACCUMULATORS[part::4], [rounding])
    assert tried > 1_000_000


def check_widest(accumulators, roundings, step):
    pairs = pairs_of(WIDEST)
    rows, ones = pairs.astype(np.float32), np.ones((2, 1), np.float32)
    terms = as_integers(pairs, 200)
    words = Words(9)
    for fmt in accumulators:
        for rounding in roundings:
            acc = Accumulator(fmt, rounding=rounding)
            total = float_sum(acc, 200)
            found = matmul(rows, ones, acc, seed=9)[::step, 0]
            expected = [as_float(total(terms[i], words.of(i)), 200) for i in range(0, len(terms), step)]
            np.testing.assert_array_equal(found, expected, err_msg=str(acc))


def test_pairs_of_powers_of_two_far_apart_in_small_accumulators():
    check_widest(ACCUMULATORS[::3], [*DETERMINISTIC, "stochastic:2"], 61)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic:2"])
def test_all_pairs_of_powers_of_two_of_six_bits_in_all_accumulators_of_up_to_eight(rounding):
    check_widest(ACCUMULATORS, [rounding], 1)


# All random numbers.


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("text", ["e5m2", "e4m3fn", "e4m3-flush", "e6m9", "e8m0fn"])
def test_the_probability_of_every_outcome_of_two_additions_is_that_of_the_definition(text, bits):
    # Outputs of equal products differ by their words alone; these are known, and each pair of r-bit numbers
    # occurs. Counted once each, the outcomes have exactly the probabilities of the definition.
    fmt, top = parse_format(text), 1 << bits
    x, y = Fraction(75, 64), Fraction(-23, 1 << 12)
    count = 40 * top * top
    rows = np.repeat(np.array([[float(x), float(y)]], np.float32), count, 0)
    found = matmul(rows, np.ones((2, 1), np.float32), f"{text} rounding=stochastic:{bits}", seed=9)[:, 0]
    first, second = random_of_pairs(count, bits, 9)
    outcomes = {}
    for pair, value in zip(zip(first.tolist(), second.tolist(), strict=True), found.tolist(), strict=True):
        assert outcomes.setdefault(pair, value) == value
    assert len(outcomes) == top * top
    law = {}
    for value, share in branches(x, fmt, bits):
        for result, more in branches(Fraction(value) + y, fmt, bits):
            law[float(result)] = law.get(float(result), 0) + share * more
    counted = {v: Fraction(list(outcomes.values()).count(v), top * top) for v in set(outcomes.values())}
    assert counted == {value: share for value, share in law.items() if share}


def branches(x, fmt, bits):
    """(value, probability) of a stochastic rounding of x with so many bits."""
    sign, size = (-1, -x) if x < 0 else (1, x)
    if size == 0:
        return [(Fraction(0), Fraction(1))]
    low, high, _ = neighbours(size, fmt)
    up = Fraction(int((size - low) / (high - low) * 2**bits), 2**bits)
    return [(sign * low, 1 - up), (sign * high, up)]


@pytest.mark.parametrize("rounding", ["stochastic", "stochastic:1", "stochastic:7", "stochastic:32"])
def test_no_sum_of_two_numbers_that_is_a_value_is_ever_moved(rounding):
    moved = 0
    for text in ("e4m3fn", "e5m2", "e3m2", "e4m3-flush", "e4m0fn", "e3m4"):
        fmt = parse_format(text)
        values = finite_values(fmt)
        pairs = pairs_of(fmt)
        stays = np.isin(pairs.sum(1), values)
        ones = np.ones((2, 1), np.float32)
        expected = pairs.sum(1)[stays]
        for seed in range(4):
            found = matmul(
                pairs[stays].astype(np.float32), ones, Accumulator(fmt, rounding=rounding), seed=seed
            )
            np.testing.assert_array_equal(found[:, 0], expected)
        rest = pairs[~stays]
        found = matmul(rest.astype(np.float32), ones, Accumulator(fmt, rounding=rounding), seed=0)
        moved += (found[:, 0] != rest.sum(1)).sum()
    assert moved > 10_000  # while the others are


@pytest.mark.parametrize("text", ["e5m2", "e4m3fn", "e4m3-flush"])
def test_random_numbers_of_all_values_round_as_often_up_as_the_discarded_part_says(text):
    # Of the 16 numbers of four random bits exactly floor(16 * share) complements carry, in the judges too.
    fmt = parse_format(text)
    once = rounder(fmt, Rounding.parse("stochastic:4"), 40)
    for size in (Fraction(77, 64), Fraction(3, 1 << 11), Fraction(5, 1 << 20), Fraction(400 * 16 + 7, 16)):
        low, high, _ = neighbours(size, fmt)
        expected = int((size - low) / (high - low) * 16)
        whole = int(size * 2**40)
        ups = [once(whole, lambda *_, w=w: w << 28) == int(high * 2**40) for w in range(16)]
        assert sum(ups) == expected
        draws = [round_rational(size, fmt, "stochastic", draw=(4, w)) == float(high) for w in range(16)]
        assert draws == ups
