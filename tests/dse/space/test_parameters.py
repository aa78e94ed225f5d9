import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real
from dse.space.scale import from_unit, is_geometric, to_unit
from oracles.spaces import FINITE, legal, parameters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ordinal("rows", ()), "choices of rows must not be empty"),
        (lambda: Ordinal("rows", (4, 8, 8)), "choices of rows must be distinct, got 8 twice"),
        (lambda: Ordinal("rows", (8, 4)), "choices of rows must increase, got 4 after 8"),
        (lambda: Ordinal("rows", (1, math.inf)), "choices of rows must be finite numbers, got inf"),
        (lambda: Ordinal("rows", (1, math.nan)), "choices of rows must be finite numbers, got nan"),
        (lambda: Ordinal("rows", (True, 2)), "choices of rows must be finite numbers, got True"),
        (lambda: Ordinal("rows", (1, "a")), "choices of rows must be finite numbers, got 'a'"),
        (lambda: Ordinal("rows", ("a", 1)), "choices of rows must be all text or all numbers, got 1"),
        (lambda: Ordinal("rows", (-1, 1), log=True), "choices of rows must be at least 0 with log, got -1"),
        (lambda: Ordinal("rows", ("a", "b"), log=True), "choices of rows must be numbers with log, got 'a'"),
        (lambda: Ordinal("", (1,)), "name of a parameter must be a non-empty text, got ''"),
        (lambda: Real(3, 0, 1), "name of a parameter must be a non-empty text, got 3"),
        (lambda: Categorical("flow", ()), "choices of flow must not be empty"),
        (lambda: Categorical("flow", ("a", "a")), "choices of flow must be distinct, got 'a' twice"),
        (lambda: Categorical("flow", (1, True)), "choices of flow must be distinct, got True twice"),
        (lambda: Categorical("flow", "abc"), "choices of flow must be a list, got the text 'abc'"),
        (lambda: Categorical("flow", ("a", ("b",))), r"booleans or None, got \('b',\)"),
        (lambda: Categorical("flow", ("a", ["b"])), r"booleans or None, got \['b'\]"),
        (lambda: Categorical("flow", (math.nan,)), "finite numbers, booleans or None, got nan"),
        (
            lambda: Categorical("flow", ("a", None), active_if=("p", [1])),
            "choices of flow must not have None, its value while inactive",
        ),
        (lambda: PowerOfTwo("rows", 4, 12), "bounds of rows must be powers of two in 1..2.*, got 12"),
        (lambda: PowerOfTwo("rows", 0, 4), "bounds of rows must be powers of two in 1..2.*, got 0"),
        (lambda: PowerOfTwo("rows", True, 4), "bounds of rows must be powers of two in 1..2.*, got True"),
        (lambda: PowerOfTwo("rows", 1, 4.0), "bounds of rows must be powers of two in 1..2.*, got 4.0"),
        (lambda: PowerOfTwo("rows", 1, 1 << 63), "bounds of rows must be powers of two in 1..2.*, got 9"),
        (lambda: PowerOfTwo("rows", 8, 4), "low of rows must not exceed high, got 8 > 4"),
        (lambda: Real("x", 2, 1), "low of x must not exceed high, got 2.0 > 1.0"),
        (lambda: Real("x", math.nan, 1), "low of x must be a finite number, got nan"),
        (lambda: Real("x", 0, math.inf), "high of x must be a finite number, got inf"),
        (lambda: Real("x", False, 1), "low of x must be a finite number, got False"),
        (lambda: Real("x", "0", 1), "low of x must be a finite number, got '0'"),
        (lambda: Real("x", 0, 1, log=True), "low of x must be positive with log, got 0"),
        (
            lambda: Real("x", -1e308, 1e308),
            "bounds of x must be a finite way apart, got -1e[+]308 to 1e[+]308",
        ),
        (lambda: Integer("n", 2, 1), "low of n must not exceed high, got 2 > 1"),
        (lambda: Integer("n", 0, True), r"high of n must be an integer of at most 2\*\*53, got True"),
        (lambda: Integer("n", 0, 1.5), r"high of n must be an integer of at most 2\*\*53, got 1.5"),
        (lambda: Integer("n", 0, math.nan), r"high of n must be an integer of at most 2\*\*53, got nan"),
        (lambda: Integer("n", 0, 2**53 + 1), r"high of n must be an integer of at most 2\*\*53, got 9007"),
        (lambda: Integer("n", -1, 5, log=True), "low of n must be at least 0 with log, got -1"),
        (lambda: Permutation("o", "mnk"), "items of o must be a list, got the text 'mnk'"),
        (lambda: Permutation("o", ()), "items of o must number 1 to 32, got 0"),
        (lambda: Permutation("o", range(33)), "items of o must number 1 to 32, got 33"),
        (lambda: Permutation("o", ("m", "m")), "items of o must be distinct, got 'm' twice"),
        (lambda: Permutation("o", ("m", None)), "items of o must be text or finite numbers, got None"),
    ],
)
def test_a_bad_parameter_is_refused_with_the_value_and_the_rule(make, message):
    with pytest.raises(ValueError, match=f"^.*{message}[^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (Ordinal("x", (4, 8)), 5, "x must be one of 4, 8, got 5"),
        (Ordinal("x", (4, 8)), [4], r"x must be one of 4, 8, got \[4\]"),
        (Ordinal("x", range(30)), 99, "17, 18, 19, ..., got 99"),
        (Real("x", 0, 1), 1.5, "x must be a number in 0.0..1.0, got 1.5"),
        (Real("x", 0, 1), math.nan, "x must be a number in 0.0..1.0, got nan"),
        (Real("x", 0, 1), True, "x must be a number in 0.0..1.0, got True"),
        (Real("x", 0, 1), "0.5", "x must be a number in 0.0..1.0, got '0.5'"),
        (Integer("n", 0, 9), 2.5, "n must be an integer in 0..9, got 2.5"),
        (Integer("n", 0, 9), 10, "n must be an integer in 0..9, got 10"),
        (Integer("n", 0, 9), math.inf, "n must be an integer in 0..9, got inf"),
        (Integer("n", 0, 9), False, "n must be an integer in 0..9, got False"),
        (Permutation("o", ("m", "n")), ("m", "m"), r"o must be an order of m, n, got \('m', 'm'\)"),
        (Permutation("o", ("m", "n")), ("m",), r"o must be an order of m, n, got \('m',\)"),
        (Permutation("o", ("m", "n")), "mn", "o must be an order of m, n, got 'mn'"),
    ],
)
def test_a_value_outside_is_refused(parameter, value, message):
    with pytest.raises(ValueError, match=f"^.*{message}$"):
        parameter.check(value)


@given(parameter=parameters("p", kinds=FINITE))
def test_the_values_are_the_legal_ones_and_the_size_counts_them(parameter):
    values = list(parameter.values())
    assert values == legal(parameter)
    assert parameter.size == len(values)
    assert [parameter.check(value) for value in values] == values
    assert parameter.default in values


@given(parameter=parameters("p", kinds=FINITE), seed=st.integers(0, 2**32 - 1))
def test_uniform_points_draw_every_value_and_no_other(parameter, seed):
    rng = np.random.default_rng(seed)
    drawn = parameter.from_unit(rng.random((2000, parameter.width)))
    assert set(drawn) == set(legal(parameter))


@pytest.mark.parametrize(
    "parameter",
    [Ordinal("x", (1, 2, 4)), Integer("n", -4, 4), Integer("n", 0, 9, log=True), Real("r", 0.5, 3, log=True)],
)
def test_the_ends_of_the_interval_are_the_bounds(parameter):
    ends = parameter.from_unit(np.array([[0.0], [np.nextafter(1.0, 0.0)]]))
    np.testing.assert_allclose(parameter.encode(ends)[:, 0], [0, 1], atol=1e-12)


def test_integers_are_drawn_evenly_and_in_the_logarithm_like_their_inverse():
    points = (np.arange(2**16) + 0.5)[:, None] / 2**16
    counts = Counter(Integer("n", 3, 6).from_unit(points))
    assert counts == dict.fromkeys(range(3, 7), 2**14)
    counts = Counter(Integer("n", 1, 7, log=True).from_unit(points))
    for n in range(1, 8):  # from 1 to 8 is 3 octaves
        assert counts[n] == pytest.approx(2**16 * math.log2((n + 1) / n) / 3, abs=2)


def test_orders_are_drawn_evenly():
    drawn = Permutation("o", ("a", "b", "c", "d")).from_unit(np.random.default_rng(0).random((24_000, 4)))
    counts = Counter(drawn)
    assert len(counts) == 24
    assert all(abs(count - 1000) < 150 for count in counts.values())  # 5 standard deviations


def test_an_order_is_encoded_by_the_place_of_each_item():
    order = Permutation("loops", ("m", "n", "k", "b", 5))
    assert order.columns == ("loops[m]", "loops[n]", "loops[k]", "loops[b]", "loops[5]")
    np.testing.assert_array_equal(
        order.encode([("m", "n", "k", "b", 5), (5, "b", "m", "k", "n")]),
        [[0, 0.25, 0.5, 0.75, 1], [0.5, 1, 0.75, 0.25, 0]],
    )


def test_encodings_by_hand():
    np.testing.assert_array_equal(PowerOfTwo("x", 2, 32).encoding, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(Ordinal("x", (0, 1, 3, 15), log=True).encoding, [0, 0.25, 0.5, 1])
    np.testing.assert_array_equal(Ordinal("x", (0, 1, 4)).encoding, [0, 0.25, 1])
    np.testing.assert_array_equal(Ordinal("x", ("fp8", "fp16", "fp32")).encoding, [0, 0.5, 1])
    np.testing.assert_array_equal(Integer("x", -2, 2).encode([-2, 1]), [[0], [0.75]])
    np.testing.assert_allclose(Real("x", 1e-4, 1, log=True).encode([1e-4, 1e-3, 1.0]), [[0], [0.25], [1]])
    np.testing.assert_array_equal(Real("x", 4, 4).encode([4.0]), [[0]])


@given(
    low=st.floats(0, 10),
    span=st.floats(0.5, 1e6),
    points=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    log=st.booleans(),
)
def test_the_unit_interval_and_the_scale_are_inverse(low, span, points, log):
    low = 0.0 if low < 1e-3 else low
    values = from_unit(np.array(points), low, low + span, log=log)
    assert ((values >= low) & (values <= low + span)).all()
    np.testing.assert_allclose(to_unit(values, low, low + span, log=log), points, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "geometric"),
    [
        ([1, 2, 4, 8], True),
        ([0, 1, 2, 4, 8], True),
        ([500, 1000, 5000], True),
        ([1e-4, 1e-3, 1e-2], True),
        ([1, 2, 3, 4, 5], False),
        ([0, 1, 2, 3], False),
        ([20, 40, 60], False),
        ([96, 192, 288, 384], False),
        ([1, 4, 6, 8, 10, 12, 16], False),
        ([-4, -2, -1], False),
        ([1, 1000], False),
        ([7], False),
    ],
)
def test_a_list_is_geometric_where_the_logarithm_spaces_it_more_evenly(values, geometric):
    assert is_geometric(np.array(values, dtype=np.float64)) == geometric


def test_a_wide_integer_moves_by_powers_of_two_and_mutates_at_every_scale():
    wide = Integer("n", 0, 10**6)
    moves = list(wide.moves(5))
    assert {abs(move - 5) for move in moves} == {2**k for k in range(20)}
    assert all(0 <= move <= 10**6 for move in moves)
    rng = np.random.default_rng(0)
    sizes = np.array([abs(wide.mutate(500_000, rng) - 500_000) for _ in range(500)])
    assert sizes.min() > 0
    assert (sizes < 10_000).mean() > 0.15
    assert (sizes > 100_000).mean() > 0.15
    log = Integer("n", 1, 10**6, log=True)
    assert {log.mutate(1, rng) for _ in range(300)} >= {2, 3}
    assert 1 not in {log.mutate(1, rng) for _ in range(300)}


@pytest.mark.parametrize("end", [0, 10**6])
def test_a_mutation_at_a_bound_stays_inside(end):
    rng = np.random.default_rng(0)
    wide = Integer("n", 0, 10**6)
    assert all(0 <= wide.mutate(end, rng) <= 10**6 for _ in range(500))
    real = Real("x", 0, 10**6)
    moved = [real.mutate(float(end), rng) for _ in range(500)]
    assert all(0 <= value <= 10**6 for value in moved)
    assert len(set(moved)) == 500  # reflected, not heaped on the bound


def test_a_real_has_no_moves_and_cannot_be_listed():
    real = Real("x", 0, 1)
    assert list(real.moves(0.5)) == []
    with pytest.raises(TypeError, match="the values of x are a continuum and cannot be listed"):
        real.values()
    assert list(Real("x", 2, 2).values()) == [2.0]
