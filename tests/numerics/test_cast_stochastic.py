"""Stochastic `cast`: exact probabilities, no drift, and a random word that depends on what it should."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import cast, parse_format
from numerics._kernels import random
from numerics._target import Target
from numerics.rounding import Rounding
from oracles.philox import cast_digits, cast_draws, philox4x32, sum_word
from oracles.rational import neighbours, round_rational
from oracles.strategies import formats, hard_values
from oracles.table import magnitudes

KNOWN_ANSWERS = [  # Random123, kat_vectors
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    arguments = [np.uint32(word) for word in (*counter, *key)]
    assert tuple(int(word) for word in random.philox(*arguments)) == words


@given(
    element=st.integers(0, 2**40),
    number=st.integers(0, 2**33),
    page=st.integers(0, 3),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**63 - 1),
)
def test_words_are_those_of_the_documented_counters(element, number, page, seed, stream):
    key = random.stream_key(seed, stream)
    assert int(random.cast_digits(element, page, *key)) == cast_digits(element, page, seed, stream)
    assert int(random.sum_word(element, number, page, *key)) == sum_word(element, number, page, seed, stream)


@given(counter=st.tuples(*[st.integers(0, 2**32 - 1)] * 4), key=st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_philox_agrees_with_plain_integers(counter, key):
    words = random.philox(*(np.uint32(word) for word in (*counter, *key)))
    assert tuple(int(word) for word in words) == philox4x32(counter, key)


def keys_by_draw(bits, count):
    """A stream for each value of the first `bits` random bits of element 0."""
    found = {}
    for stream in range(count):
        found.setdefault(cast_digits(0, 0, 1, stream) >> (16 - bits), stream)
    return found


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
@pytest.mark.parametrize("text", ["e4m3fn", "e5m2", "e2m1", "e4m3-flush", "s3.4", "ue4m4"])
def test_every_random_number_gives_the_result_of_the_definition(text, bits):
    fmt = parse_format(text)
    streams = keys_by_draw(bits, 400)
    assert len(streams) == 1 << bits
    for x in hard_values(fmt, np.random.default_rng(bits), 40):
        for draw, stream in streams.items():
            result = cast(np.array([x]), fmt, rounding=f"stochastic:{bits}", seed=1, stream=stream)[0]
            assert result == round_rational(float(x), fmt, "stochastic", draw=(bits, draw))


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_the_probability_of_rounding_up_is_the_discarded_part_cut_to_r_bits(bits):
    fmt = parse_format("e5m2")
    streams = keys_by_draw(bits, 3000)
    assert len(streams) == 1 << bits
    for x in (1.0625, 1.2, 3.0001, 2.0**-17, 1e-5):
        low, high, _ = neighbours(Fraction(x), fmt)
        share = (Fraction(x) - low) / (high - low)
        ups = sum(
            cast(np.array([x]), fmt, rounding=f"stochastic:{bits}", seed=1, stream=stream)[0] == high
            for stream in streams.values()
        )
        assert Fraction(ups, 1 << bits) == Fraction(int(share * 2**bits), 1 << bits)


@pytest.mark.parametrize("text", ["e5m2", "e8m2", "e5m2-flush"])  # vectors, loops, the general kernel
@pytest.mark.parametrize("rounding", ["stochastic", "stochastic:20", "stochastic:32"])
@pytest.mark.parametrize("pages", [1, 2])
def test_more_digits_are_taken_where_the_first_do_not_decide(text, rounding, pages):
    # 1 + d/4 between 1 and 1.25: the first digits of d are the complements of the random ones.
    moved = set()
    for stream in range(40):
        digits = [(0xFFFF - cast_digits(0, 0, 5, stream), 16)]
        digits += [(0xFFFFFFFF - cast_digits(0, page, 5, stream), 32) for page in range(1, pages)]
        number = 0
        for value, width in digits:
            number = number << width | value
        total = sum(width for _, width in digits)
        for below in (0, 1, 2, 3, 5):  # two more bits, 00 to 11; and one more in the last digit
            x = float(1 + Fraction(4 * number + below, 1 << (total + 4)))
            draw = cast_draws(5, stream, Rounding.parse(rounding).random_bits)(0)
            expected = round_rational(x, parse_format(text), "stochastic", draw=draw)
            moved.add(expected)
            for dtype in (np.float32, np.float64):
                if float(dtype(x)) != x:
                    continue
                for padded in (np.array([x], dtype), np.full(70, x, dtype)):
                    got = cast(padded, text, rounding=rounding, seed=5, stream=stream)
                    assert got[0] == expected
                    again = padded.copy()
                    cast(again, text, rounding=rounding, seed=5, stream=stream, out=again)
                    np.testing.assert_array_equal(again, got)
    # The second page holds more digits than 20 or 32 bits have: equal ones do not carry.
    assert moved == ({1.0} if pages == 2 and rounding != "stochastic" else {1.0, 1.25})


def test_an_exact_sum_takes_the_error_of_its_float64_into_account():
    # The sum is 1 + d + tiny with a tiny far below float64: where d alone is no carry, d + tiny may be.
    from numerics._kernels.random import stream_key
    from numerics._kernels.rounding import round_sum

    target = Target.of(parse_format("e5m2"), Rounding.STOCHASTIC).scalars()
    moved = 0
    for stream in range(40):
        first = 0xFFFFFFFF - sum_word(0, 0, 0, 3, stream)
        a = 1.0 + first * 2.0**-34  # its digits equal the complement of the first word: undecided so far
        for tiny in (2.0**-60, 2.0**-400, -(2.0**-60), -(2.0**-400)):
            exact = Fraction(a) + Fraction(tiny)
            if exact <= 1:
                continue
            got = round_sum(a, tiny, target, True, 0, 0, *stream_key(3, stream))
            # A positive tiny is less than the next words, but for a chance of 2**-26; a negative one borrows.
            assert got == round_rational(exact, parse_format("e5m2"), "stochastic", draw=sum_draws_0(stream))
            moved += got == 1.25
    assert moved == 0


def sum_draws_0(stream):
    words = [sum_word(0, 0, page, 3, stream) for page in range(16)]
    return 512, sum(word << (480 - 32 * page) for page, word in enumerate(words))


@given(
    fmt=formats(), bits=st.integers(0, 32), seed=st.integers(0, 2**63 - 1), stream=st.integers(0, 2**63 - 1)
)
def test_element_i_is_rounded_with_its_own_words(fmt, bits, seed, stream):
    x = hard_values(fmt, np.random.default_rng(seed), 15)
    rounding = f"stochastic:{bits}" if bits else "stochastic"
    rounded = cast(x, fmt, rounding=rounding, seed=seed, stream=stream)
    draws = cast_draws(seed, stream, bits)
    expected = [round_rational(float(v), fmt, "stochastic", draw=draws(i)) for i, v in enumerate(x)]
    np.testing.assert_array_equal(rounded, expected)


@pytest.mark.parametrize("text", ["e4m3fn", "e2m1", "s3.4", "e5m2-flush"])
@pytest.mark.parametrize("bits", [1, 24, 32])
def test_values_of_the_format_never_move(text, bits):
    grid = magnitudes(parse_format(text))
    x = np.tile(grid[grid <= parse_format(text).max], 50)
    np.testing.assert_array_equal(cast(x, text, rounding=f"stochastic:{bits}", seed=9), x)


@pytest.mark.parametrize("x", [1.1, -1.1, 2.0**-16 * 0.3, 1e-4, 40000.7])
def test_the_mean_of_many_roundings_is_the_value(x):
    n = 200_000
    rounded = cast(np.full(n, x), "e5m2", rounding="stochastic", seed=123)
    values = np.unique(rounded)
    assert len(values) == 2
    # The mean of n two-point variables lies within 5 standard deviations but for 6 cases in 10**7.
    share = (x - values[0]) / (values[1] - values[0])
    deviation = (values[1] - values[0]) * np.sqrt(share * (1 - share) / n)
    assert abs(rounded.mean() - x) < 5 * deviation + (values[1] - values[0]) * 2.0**-24


def test_few_random_bits_bias_by_less_than_their_unit():
    # The discarded part 0.7 is cut to 0.5 with one random bit, and to 0.6875 with four.
    x = np.full(200_000, 1.0 + 0.7 * 0.25)
    for bits, share in ((1, 0.5), (4, 0.6875)):
        ups = (cast(x, "e5m2", rounding=f"stochastic:{bits}", seed=3) == 1.25).mean()
        assert abs(ups - share) < 5 * np.sqrt(share * (1 - share) / x.size)


def test_values_below_the_least_subnormal_can_round_up():
    x = np.full(100_000, 2.0**-16 / 64)
    ups = (cast(x, "e5m2", rounding="stochastic", seed=0) > 0).mean()
    assert abs(ups - 1 / 64) < 5 * np.sqrt(1 / 64 / x.size)


def test_equal_keys_give_equal_bits_and_others_do_not():
    x = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    keys = [(0, 0), (1, 0), (0, 1), (1, 1), (1 << 40, 0), (0, 1 << 41), (0, 2)]
    results = [cast(x, "e4m3fn", rounding="stochastic", seed=seed, stream=stream) for seed, stream in keys]
    again = [cast(x, "e4m3fn", rounding="stochastic", seed=seed, stream=stream) for seed, stream in keys]
    for i, one in enumerate(results):
        np.testing.assert_array_equal(one, again[i])
        for other in results[:i]:
            # Independent draws differ in a share 2 s (1 - s) of the elements, on average a third.
            assert 0.25 < (one != other).mean() < 0.42


def test_the_word_belongs_to_the_index_in_c_order_so_a_prefix_can_be_cut_off():
    x = np.random.default_rng(0).normal(size=(40, 25))
    whole = cast(x, "e4m3fn", rounding="stochastic", seed=4)
    np.testing.assert_array_equal(cast(x[:10], "e4m3fn", rounding="stochastic", seed=4), whole[:10])
    np.testing.assert_array_equal(cast(x.ravel(), "e4m3fn", rounding="stochastic", seed=4), whole.ravel())
    # A part that does not start at 0 counts anew: same key, other words.
    assert (cast(x[10:], "e4m3fn", rounding="stochastic", seed=4) != whole[10:]).mean() > 0.25
    # In C order of the array as given, whatever its strides.
    turned = cast(x.T, "e4m3fn", rounding="stochastic", seed=4)
    np.testing.assert_array_equal(turned, cast(x.T.copy(), "e4m3fn", rounding="stochastic", seed=4))


def test_neighbouring_elements_are_independent():
    x = np.full(2**17, 1.125)  # midway between two values of e5m2
    ups = (cast(x, "e5m2", rounding="stochastic", seed=8) == 1.25).astype(float) - 0.5
    for lag in (1, 2, 3, 4, 64):
        correlation = 4 * (ups[lag:] * ups[:-lag]).mean()
        assert abs(correlation) < 5 / np.sqrt(x.size)


def test_a_missing_or_bad_key_is_an_error():
    x = np.ones(2)
    with pytest.raises(ValueError, match=r"rounding stochastic needs a seed .* got None"):
        cast(x, "e5m2", rounding="stochastic")
    for name in ("seed", "stream"):
        for value in (-1, 1 << 63):
            with pytest.raises(ValueError, match=f"{name} must be in .* got {value}"):
                cast(x, "e5m2", rounding="stochastic", **{"seed": 0, name: value})


@pytest.mark.parametrize("name", ["seed", "stream"])
def test_a_key_that_is_no_integer_is_an_error(name):
    with pytest.raises((TypeError, ValueError), match=f"{name} must be .* got 1.5"):
        cast(np.ones(2), "e5m2", rounding="stochastic", **{"seed": 0, name: 1.5})


def test_seed_and_stream_do_not_stand_in_for_each_other():
    x = np.full(64, 1.1)
    one = cast(x, "e5m2", rounding="stochastic", seed=1 << 40, stream=0)
    other = cast(x, "e5m2", rounding="stochastic", seed=0, stream=1 << 40)
    assert not np.array_equal(one, other)
