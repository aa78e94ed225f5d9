"""Edges of single kernels, called directly: what `tests/mutants` found that no other test would notice."""

import math
from fractions import Fraction

import numpy as np
import pytest

from numerics import Rounding, _packing, _sequential, cast, matmul, parse_format
from numerics._kernels import (
    arrays,
    blocks,
    casts,
    coding,
    facts,
    kulisch,
    loops,
    ordered,
    packing,
    random,
    rounding,
    tiles,
    vectors,
)
from numerics._kernels.vectors import LANES_32
from numerics._target import Target
from numerics.certificate import Operand
from oracles.philox import cast_digits, cast_draws, stream_key, sum_draws, sum_word
from oracles.rational import DETERMINISTIC, dot_rational, matmul_rational, round_rational

ENDS_64 = [5e-324, 6 * 5e-324, 2.0**-1022, 2.0**-1022 - 5e-324, 1.0, 1 + 2.0**-52, 1.5, -6.0, 2.0**1023]
ENDS_32 = [2.0**-149, 6 * 2.0**-149, 2.0**-126, 2.0**-126 - 2.0**-149, 1.0, 1 + 2.0**-23, 1.5, -6.0, 2.0**127]


def facts_of(values, emin):
    """(largest, exponent of the least unit, bits of the longest significand) of numbers, by integers.

    A subnormal has the leading zeros of its significand, which begins at `emin`.
    """
    largest, unit, precision = 0.0, 2000, 0
    for value in map(abs, values):
        if value:
            numerator, denominator = value.as_integer_ratio()
            last = (numerator & -numerator).bit_length() - denominator.bit_length()
            first = max(numerator.bit_length() - denominator.bit_length(), emin)
            largest, unit = max(largest, value), min(unit, last)
            precision = max(precision, first - last + 1)
    return largest, unit, precision


@pytest.mark.parametrize(("dtype", "ends"), [(np.float64, ENDS_64), (np.float32, ENDS_32)])
def test_the_facts_of_an_operand_are_those_of_its_integers(dtype, ends):
    rng = np.random.default_rng(0)
    samples = [[], [0.0, -0.0], *([end] for end in ends), *([1.0, end] for end in ends), ends]
    samples += [[*rng.normal(size=3).astype(dtype).astype(float), 0.0] for _ in range(20)]
    for values in samples:
        expected = facts_of(values, -1022)
        assert facts.operand_facts(np.array(values)) == (*expected, True)
        assert facts.operand_facts(np.array([np.nan, *values, np.inf, -np.inf])) == (*expected, False)
        if any(values):
            known = Operand.of(np.array(values, dtype).reshape(1, -1))
            assert (known[0], known[1], known[3]) == (*expected[:2], True)
            assert known[2] >= expected[2]
            assert not Operand.of(np.array([[np.nan, *values, np.inf]], dtype))[3]


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_of_float32_patterns_are_those_of_integers(seed):
    rng = np.random.default_rng(seed)
    patterns = [int(word) >> int(rng.integers(31)) for word in rng.integers(0, 2**32, 9)] + [0, 1 << 31] * (
        seed % 2
    )
    magnitudes = [word & 0x7FFFFFFF for word in patterns]
    union = 0
    for word in magnitudes:
        union |= word
    expected = (max(magnitudes), min(filter(None, magnitudes)), union)
    assert facts.bounds_f32(np.array(patterns, np.uint32).view(np.int32)) == expected


FORMATS = ("e4m3fn", "e5m2", "e2m1", "e4m3-flush", "e3m0none", "e8m7", "ue4m4", "s3.4")
ROUND = {text: parse_format(text) for text in FORMATS}


def around(fmt):
    """Floats at, beside and between values of a format, its ends and far beyond them."""
    top, least = fmt.max, 2.0 ** -getattr(fmt, "frac_bits", 0)
    least = getattr(fmt, "min_subnormal", least)
    seeds = [least * k / 4 for k in range(1, 14)]
    seeds += [top * k / 64 for k in (1, 3, 17, 59, 61, 63, 64, 65, 66, 67, 68, 70, 72, 80, 96, 128)]
    seeds += [k / 32 for k in range(33, 64)]
    beside = [np.nextafter(x, y) for x in seeds for y in (0.0, np.inf)]
    far = [5e-324, 2.0**-1022, 2.0**-300, 2.0**199, 2.0**200, 1.5 * 2.0**200, 1e308, np.inf]
    positive = [*seeds, *map(float, beside), *far]
    return [0.0, -0.0, *positive, *(-x for x in positive)]


def same(one, other):
    return np.array_equal(one, other, equal_nan=True) and np.signbit(one) == np.signbit(other)


@pytest.mark.parametrize("text", FORMATS)
def test_one_rounding_is_that_of_rationals_at_every_edge_of_the_format(text):
    fmt = parse_format(text)
    for mode in DETERMINISTIC:
        target = Target.of(fmt, Rounding.parse(mode)).scalars()
        for x in around(fmt):
            expected = round_rational(x, fmt, mode)
            got = rounding.round_one(x, *target)
            assert got == expected, (x, mode)
    assert np.isnan(rounding.round_one(np.nan, *target))


def test_a_sum_to_odd_is_exact_or_the_odd_one_of_its_neighbours():
    rng = np.random.default_rng(0)
    for x in (1.0, 1 + 2.0**-52, 1.5 - 2.0**-52, 2.0 - 2.0**-52, 0.1, 3.0):
        for y in [0.0, *(2.0**-e * rng.uniform(1, 2) for e in range(45, 70)), 5e-324, 1e-300, 0.3, 2.0**60]:
            for a, b in ((x, y), (x, -y), (-x, y), (-x, -y), (y, x), (y, -x)):
                exact, got = Fraction(a) + Fraction(b), float(rounding.sum_to_odd(a, b))
                if Fraction(got) != exact:
                    assert np.float64(got).view(np.int64) & 1
                    low, high = sorted((got, float(np.nextafter(got, np.inf if exact > got else -np.inf))))
                    assert Fraction(low) < exact < Fraction(high)
    assert rounding.sum_to_odd(np.inf, 1.0) == np.inf
    assert rounding.sum_to_odd(1e308, 1e308) == np.inf
    assert np.isnan(rounding.sum_to_odd(np.inf, -np.inf))


@pytest.mark.parametrize("bits", [0, 1, 7, 31, 32])
def test_a_stochastic_sum_is_that_of_rationals_at_every_edge_of_the_format(bits):
    rng = np.random.default_rng(bits)
    for fmt in ROUND.values():
        stochastic = Rounding.STOCHASTIC if bits == 0 else Rounding.parse(f"stochastic:{bits}")
        target = Target.of(fmt, stochastic).scalars()
        for x in around(fmt)[2:]:
            key = int(rng.integers(2**40)), int(rng.integers(2**40))
            element, number = int(rng.integers(2**34)), int(rng.integers(2**34))
            draw = sum_draws(*key, bits)(element, number)
            words = [np.uint32(word) for word in stream_key(*key)]
            for y in (0.0,) if np.isinf(x) else (0.0, x * 2.0**-60, -x * 2.0**-60):
                exact = x if y == 0.0 else Fraction(x) + Fraction(y)
                expected = round_rational(exact, fmt, "stochastic", draw=draw)
                got = rounding.round_sum(x, y, target, True, element, number, *words)
                assert got == expected, (fmt, x, y, draw)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_round_to_nearest_even_at_every_edge_of_the_format(dtype):
    wide = dtype is np.float64
    kernel = casts.cast_nearest_even if wide else casts.cast_nearest_even_f32
    for text in (
        "e4m3fn",
        "e5m2",
        "ue4m4",
        "s3.4",
        "e2m21none",
        "e3m0none",
        "e4m3fused-top",
        "ue7m2b23",
        "e5m2noneb-74",
    ):
        fmt = parse_format(text)
        with np.errstate(over="ignore", under="ignore"):
            x = np.array(around(fmt)).astype(dtype)
        out = np.empty_like(x)
        target = Target.of(fmt, Rounding.NEAREST_EVEN)
        kernel(x, out, *target[1:5], *target.limits())
        np.testing.assert_array_equal(out, [round_rational(float(value), fmt) for value in x])
        signs = np.signbit(x[out == 0.0])
        np.testing.assert_array_equal(np.signbit(out[out == 0.0]), signs)
        kernel(np.full(3, np.nan, dtype), out[:3], *target[1:5], *target.limits())
        assert np.isnan(out[:3]).all()


@pytest.mark.parametrize("bits", [0, 3, 16, 20])
def test_loops_round_stochastically_at_every_edge_of_the_format(bits):
    stochastic = Rounding.STOCHASTIC if bits == 0 else Rounding.parse(f"stochastic:{bits}")
    for text in ("e4m3fn", "ue4m4", "s3.4", "e8m7", "e3m0none"):
        fmt = parse_format(text)
        x = np.array(around(fmt))
        target = Target.of(fmt, stochastic)
        draws = cast_draws(7, 2**33, bits)
        expected = [
            round_rational(float(value), fmt, "stochastic", draw=draws(i)) for i, value in enumerate(x)
        ]
        out, undecided = np.full_like(x, 9.0), np.zeros(-(-x.size // casts.GROUP), np.bool_)
        casts.cast_stochastic(x, out, target.scalars(), *target.limits(), 7, 2**33, undecided)
        assert bits not in (3, 16) or not undecided.any()
        differ = ~np.repeat(undecided, casts.GROUP)[: x.size]
        np.testing.assert_array_equal(out[differ], np.array(expected)[differ])
        casts.cast_undecided(x, out, target.scalars(), 7, 2**33, undecided, casts.GROUP)
        np.testing.assert_array_equal(out, expected)
        out[:] = 9.0
        casts.cast_any(x, out, target.scalars(), 7, 2**33)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("first", [0, 5, 2**32 - 1, 2**40])
def test_halves_are_the_first_digits_of_eight_elements_to_a_counter(first):
    out = np.zeros(24 + 5, np.uint16)
    random.fill_halves(out, first, *(np.uint32(word) for word in stream_key(3, 4)))
    assert out.tolist() == [cast_digits(8 * first + i, 0, 3, 4) for i in range(24)] + [0] * 5


@pytest.mark.parametrize("height", [8, 6, 4, 2, 1])
def test_rows_are_packed_in_panels_of_height_then_four_two_one(height):
    for rows, depth in [*((rows, 3) for rows in range(1, 20)), (5, 600)]:
        a = np.arange(1, depth * rows + 1, dtype=np.float32).reshape(rows, depth)
        expected, first = [], 0
        for tall in (height, *(low for low in (4, 2, 1) if low < height)):
            while rows - first >= tall:
                expected += a[first : first + tall].T.ravel().tolist()
                first += tall
        for operand in (a, np.asfortranarray(a)):
            packed = _packing.pack(operand, np.ones((depth, 1), np.float32), height)[0]
            assert packed.tolist() == expected


@pytest.mark.parametrize("columns", [1, LANES_32 - 1, LANES_32, LANES_32 + 1, 3 * LANES_32, 3 * LANES_32 + 1])
def test_columns_are_packed_in_pairs_of_panels_of_a_vector_padded_with_zeros(columns):
    depth = 37
    b = np.arange(1, depth * columns + 1, dtype=np.float32).reshape(depth, columns)
    count = -(-columns // (2 * LANES_32)) * 2
    padded = np.zeros((depth, count * LANES_32), np.float32)
    padded[:, :columns] = b
    expected = padded.reshape(depth, count, LANES_32).transpose(1, 0, 2)
    a = np.ones((1, depth), np.float32)
    for operand in (b, np.asfortranarray(b)):
        _packing.pack(a, np.full_like(operand, 7.0), 1)  # what the room held before
        np.testing.assert_array_equal(_packing.pack(a, operand, 1)[-1], expected)


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_plain_loops_give_the_rational_sums_in_blocks_of_columns(chunk):
    rng = np.random.default_rng(chunk)
    a = rng.integers(-15, 16, (3, 7)).astype(np.float32) * np.float32(0.25)
    b = rng.integers(-15, 16, (7, 5)).astype(np.float32)
    a[0], a[1, 3] = 0.0, 8192.0  # a row of zeros; a sum of many binades
    chunk = min(chunk, 7)
    for text, mode in (
        ("e8m4", "nearest-even"),
        ("e8m7", "nearest-even"),
        ("e5m2", "up"),
        ("e8m4", "to-odd"),
    ):
        fmt = parse_format(text)
        expected = np.array(matmul_rational(a.tolist(), b.tolist(), fmt, mode, chunk=chunk))
        target = Target.of(fmt, Rounding.parse(mode))
        out = np.full((3, 5), 7.0, np.float32)
        loops.gemm_exact(a, b, out, chunk, target.scalars(), 0, 0, 0)
        np.testing.assert_array_equal(out, expected)
        if mode == "nearest-even":
            for kernel, dtype in ((loops.gemm_f32, np.float32), (loops.gemm_f64, np.float64)):
                for block in (1, 2, 5, 512):
                    out[:] = 7.0
                    kernel(a.astype(dtype), b.astype(dtype), out, chunk, fmt.frac_bits, block)
                    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("chunk", [2, 5])
def test_plain_loops_use_the_word_of_an_element_and_a_number(chunk):
    rng = np.random.default_rng(chunk)
    a, b = (rng.integers(-15, 16, shape).astype(np.float32) for shape in ((2, 5), (5, 3)))
    fmt, first = parse_format("e8m2"), 2**32 - 2
    draws = sum_draws(9, 2**35, 6)
    expected = [
        [
            dot_rational(
                a[i].tolist(), b[:, j].tolist(), fmt, "stochastic", chunk=chunk,
                draws=lambda number, element=first + 3 * i + j: draws(element, number),
            )
            for j in range(3)
        ]
        for i in range(2)
    ]  # fmt: skip
    out = np.empty((2, 3), np.float32)
    target = Target.of(fmt, Rounding.parse("stochastic:6"))
    loops.gemm_exact(a, b, out, chunk, target.scalars(), 9, 2**35, first)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("drop", [1, 2, 3, 9])
def test_a_tile_sends_the_ties_of_a_register_little_narrower_than_float32_to_even(drop):
    # Sums of two integers below 2**23 are exact in float32; every other one is a tie where a bit is dropped.
    rng = np.random.default_rng(drop)
    a = rng.integers(1 << 22, 1 << 23, (61, 2)).astype(np.float32)
    b = np.ones((2, LANES_32 + 3), np.float32)
    b[:, 1::2] *= -1
    fmt = parse_format(f"e8m{23 - drop}")
    found = _sequential._in_tiles(a, b, 2, tiles.Nearest32(drop), vectors.TO_NEAREST)
    np.testing.assert_array_equal(found, matmul_rational(a.tolist(), b.tolist(), fmt))


@pytest.mark.parametrize("offset", [0, 1, 4])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_arrays_beyond_the_caches_are_rounded_as_their_parts(offset):
    # One is as long as the caches, one has a rest; the results begin off a vector, or off what 16 divides.
    for size in (arrays.PAST_CACHES, arrays.PAST_CACHES + arrays.STRIDE + 3):
        x = np.random.default_rng(0).integers(0, 2**32, size, dtype=np.uint32).view(np.float32)
        target = Target.of(parse_format("e5m2"), Rounding.STOCHASTIC)
        for rounding_, numbers in (("nearest-even", {}), ("stochastic", {"seed": 3, "stream": 2**33})):
            whole = np.full(size + 16, 7.0, np.float32)
            cast(x, "e5m2", rounding=rounding_, **numbers, out=whole[offset : offset + size])
            if rounding_ == "stochastic":
                expected = np.empty_like(x)
                casts.cast_any(x, expected, target.scalars(), 3, 2**33)
            else:
                expected = np.concatenate([cast(part, "e5m2") for part in np.array_split(x, 3)])
            np.testing.assert_array_equal(whole[offset : offset + size], expected)
            assert (whole[:offset] == 7.0).all()
            assert (whole[offset + size :] == 7.0).all()


def factors(number):
    """Two factors that fit float32, or nothing."""
    found = ((low, number // low) for low in range(1 << 11, 1 << 17) if number % low == 0)
    return next((pair for pair in found if pair[1] < 1 << 24), None)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("lane", "chunk"), [(0, None), (LANES_32 - 1, None), (LANES_32 + 2, None), (LANES_32 + 2, 2)]
)
def test_a_word_that_does_not_decide_a_sum_of_either_sign_in_any_lane_takes_more_digits(sign, lane, chunk):
    # 1 + d: of the 33 bits of d below the last place of 1 the first 32 complement the word of the addition.
    # In the second chunk it is an addition whose sum is then added to a total, which has no doubt.
    first = 0 if chunk is None else chunk
    outcomes = set()
    for stream in range(100):
        found = factors(2 * (0xFFFFFFFF - sum_word(lane, first + 1, 0, 1, stream)) + 1)
        if found is None:
            continue
        a = np.zeros((1, first + 2), np.float32)
        a[0, first:] = sign, sign * found[0]
        b = np.zeros((first + 2, 2 * LANES_32), np.float32)
        b[first], b[first + 1, lane] = 1.0, found[1] * 2.0**-42
        draws = sum_draws(1, stream, 0)
        format_, text = parse_format("e8m9"), f"e8m9 rounding=stochastic{f' chunk={chunk}' if chunk else ''}"
        expected = matmul_rational(a.tolist(), b.tolist(), format_, "stochastic", chunk=chunk, draws=draws)
        got = matmul(a, b, text, seed=1, stream=stream)
        np.testing.assert_array_equal(got, expected)
        outcomes.add(float(got[0, lane]))
    assert len(outcomes) == 2


@pytest.mark.parametrize("chunk", ["", " chunk=256"])
def test_a_stochastic_sum_that_leaves_the_range_in_a_later_run_of_a_tile_overflows(chunk):
    # 32 * 2047 is the largest value of fp16: the next product, or the eighth chunk, overflows.
    a = np.full((5, 3072), 32.0, np.float32)
    b = np.ones((a.shape[1], LANES_32 + 2), np.float32)
    b[:, 1], b[1::2, 2] = -1.0, -1.0
    got = matmul(a, b, f"fp16 rounding=stochastic{chunk}", seed=5)
    expected = np.full_like(got, np.inf)
    expected[:, 1], expected[:, 2] = -np.inf, 0.0
    np.testing.assert_array_equal(got, expected)
    fits = matmul(a[:, :1792], b[:1792, :2], f"fp16 rounding=stochastic{chunk}", seed=5)
    np.testing.assert_array_equal(fits, [[57344.0, -57344.0]] * 5)


@pytest.mark.parametrize("rounding_", ["down", "up", "toward-zero", "nearest-away"])
@pytest.mark.parametrize("chunk", ["", " chunk=2", " chunk=4"])
def test_opposite_products_add_up_to_plus_zero_in_every_direction(rounding_, chunk):
    a = np.array([[1.0, -1.0, 1.0, -1.0]] * 5, np.float32)
    b = np.ones((4, 2 * LANES_32 + 1), np.float32)
    for operand in (b, -b):
        got = matmul(a, operand, f"e6m9 rounding={rounding_}{chunk}")
        np.testing.assert_array_equal(got.view(np.int32), 0)


@pytest.mark.parametrize("below", [0, 3])
def test_vectors_of_which_no_lane_is_decided_take_more_digits(below):
    # 1 + d/4 in e5m2: the first 16 bits of d complement the digits of every element, and two more follow.
    count = 2 * arrays.STRIDE
    digits = [cast_digits(i, 0, 5, 6) for i in range(count)]
    x = np.array([1 + (4 * (0xFFFF - word) + below) / 2**20 for word in digits], np.float32)
    draws = cast_draws(5, 6, 0)
    fmt = parse_format("e5m2")
    expected = [round_rational(float(value), fmt, "stochastic", draw=draws(i)) for i, value in enumerate(x)]
    assert len(set(expected)) == (1 if below == 0 else 2)
    np.testing.assert_array_equal(cast(x, "e5m2", rounding="stochastic", seed=5, stream=6), expected)


@pytest.mark.parametrize("x", [5e-324, 3e-320, 2.0**-1022, 1.5 * 2.0**-1023, 0.75, 1.0, 2.0**500, 1.7e308])
def test_the_exponent_of_a_float64_is_the_one_of_frexp(x):
    for value in (x, -x):
        assert ordered.exponent_of(value) == math.frexp(x)[1] - 1


def test_a_report_sees_shifts_between_the_ends_of_float64():
    # The least product, 2**-1074, met by a sum of 2**100, of which nothing is left in e8m9.
    a, b = np.array([[2.0**50, 2.0**-537]]), np.array([[2.0**50], [2.0**-537]])
    _, report = matmul(a, b, "e8m9", report=True)
    assert (report.max_shift, report.swamped) == (1174, 1)


@pytest.mark.parametrize(
    ("kernel", "dtype", "ends"),
    [(coding.largest_f64, np.float64, ENDS_64), (coding.largest_f32, np.float32, ENDS_32)],
)
def test_the_largest_magnitude_is_told_to_its_last_bit_whatever_its_sign(kernel, dtype, ends):
    for end in [0.0, *ends, math.inf, math.nan]:
        for value in (end, -end):
            word = np.array([abs(end)], dtype).view(f"u{np.dtype(dtype).itemsize}")[0]
            assert kernel(np.array([0.0, value, -0.0], dtype)) == word


def test_a_quotient_to_odd_is_exact_or_the_odd_one_of_its_neighbours():
    rng = np.random.default_rng(0)
    seen = set()
    for i in range(3000):
        x, divisor = float(rng.uniform(0.5, 1.0) * rng.choice([-1, 1])), float(rng.uniform(0.5, 1.0))
        if i % 3 == 0:
            x, divisor = float(np.float32(x)), float(np.float32(divisor))
        if i % 5 == 0:
            x = float(np.float32(divisor)) * float(rng.integers(-99, 100))
        exact = Fraction(x) / Fraction(divisor)
        low = abs(x / divisor)
        low = low if Fraction(low) <= abs(exact) else math.nextafter(low, 0.0)  # toward zero
        expected = low
        if Fraction(low) != abs(exact) and Fraction(low) / Fraction(math.ulp(low)) % 2 == 0:
            expected = math.nextafter(low, math.inf)
        seen.add((x > 0, expected == low, Fraction(low) == abs(exact)))
        assert blocks._quotient_to_odd(x, divisor) == math.copysign(expected, x)
    assert len(seen) == 6


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_blocks_are_decoded_up_to_the_last_element_and_no_further(bits):
    block, size = 16, 56
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, 128).astype(np.uint8)
    packed = sum(int(code) << (bits * i) for i, code in enumerate(codes)).to_bytes(16 * bits, "little")
    table = rng.normal(size=1 << bits).astype(np.float32)
    factors = 2.0 ** np.arange(4, dtype=np.float32)
    room = np.full(128, 7.0, np.float32)
    for length in (bits * size // 8, bits * 16):  # as many bytes as there are, or more
        room[:] = 7.0
        data = np.frombuffer(packed, np.uint8)[:length]
        packing.decode_narrow_blocks(data, room[:size], bits, table, factors, block)
        np.testing.assert_array_equal(room[:size], table[codes[:size]] * np.repeat(factors, block)[:size])
        assert (room[size:] == 7.0).all()


@pytest.mark.parametrize(
    "text", ["e6m9 rounding=stochastic", "e6m3 rounding=stochastic", "e5m2", "e5m2 chunk=300"]
)
def test_tiles_decide_ordinary_sums_themselves(text, monkeypatch):
    # 300 products and more: a chunk that is longer than what a tile does between two checks.
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=shape).astype(np.float32), "e4m3fn") for shape in ((9, 700), (700, 33)))
    exact = matmul(a, b, text, seed=1, report=True)[0]
    monkeypatch.setattr(tiles, "finish_exactly", None)
    np.testing.assert_array_equal(matmul(a, b, text, seed=1), exact)


def test_the_processor_is_told_how_to_round_any_number_of_times():
    # Room on the stack for each time would be more than 8 MiB.
    a, b = np.ones((64, 1 << 17), np.float32), np.ones((1 << 17, 64), np.float32)
    product = matmul(a, b, "e8m20 rounding=stochastic chunk=2", seed=0)
    np.testing.assert_array_equal(product, 131072.0)


@pytest.mark.parametrize("bits", [30, 53, 80, 106, 150])
def test_a_register_is_a_float64_and_a_rest_to_odd(bits):
    rng = np.random.default_rng(bits)
    for place in range(0, 90, 7):
        for sign in (1, -1):
            number = int.from_bytes(rng.bytes(19), "little") % (1 << bits) | 1 | 1 << (bits - 1)
            limbs = np.array([number << place + 117 >> 32 * i & 0xFFFFFFFF for i in range(13)], np.int64)
            value, rest = kulisch._register_value(sign * limbs, -300)
            exact = sign * Fraction(number) * Fraction(2) ** (place + 117 - 300)
            both = Fraction(value) + Fraction(rest)
            if bits <= 106:
                assert both == exact
            else:  # what is left is less than the last bit of the rest, which is odd
                unit = Fraction(math.ulp(value)) / 2**53
                assert both != exact
                assert abs(both - exact) < unit
                assert abs(Fraction(rest)) / unit % 2 == 1


def test_sixteen_random_bits_decide_nearly_all_roundings_of_a_cast(monkeypatch):
    shares = []
    monkeypatch.setattr(casts, "cast_undecided", lambda *given: shares.append(given[5].mean()))
    x = np.random.default_rng(0).normal(size=1 << 16).astype(np.float32)
    for fmt in ("e6m9", "e4m3fn"):
        cast(x, fmt, rounding="stochastic", seed=1)
    assert all(share < 0.01 for share in shares)


@pytest.mark.parametrize("bits", [bits for bits in range(1, 16) if bits != 8])
def test_codes_are_packed_up_to_the_last_bit_and_no_further(bits):
    kernel, dtype = (packing.pack_narrow, np.uint8) if bits < 9 else (packing.pack_wide, np.uint16)
    rng = np.random.default_rng(bits)
    for size in range(1, 41):
        codes = rng.integers(0, 1 << bits, size).astype(dtype)
        room = np.zeros(128, np.uint8)
        length = -(-size * bits // 8)
        room[length:] = 7
        kernel(codes, room[:length], bits)
        whole = sum(int(code) << (bits * i) for i, code in enumerate(codes))
        assert room[:length].tobytes() == whole.to_bytes(length, "little")
        assert (room[length:] == 7).all()
