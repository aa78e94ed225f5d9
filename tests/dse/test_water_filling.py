"""Water-filling: conditions of optimality, rounding against enumeration, and bad input."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.allocate import exact, exhaustive
from dse.water_filling import bit_allocation, water_filling, whole_bits

SENSITIVITY = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))


@st.composite
def groups(draw):
    g = draw(st.integers(1, 6))
    s = np.array(draw(st.lists(SENSITIVITY, min_size=g, max_size=g)))
    n = np.array(draw(st.lists(st.integers(1, 1000).map(float), min_size=g, max_size=g)))
    return s, n


@settings(max_examples=200, deadline=None)
@given(groups(), st.floats(0, 1), st.integers(0, 3), st.one_of(st.integers(4, 9).map(float), st.just(np.inf)))
def test_marginal_losses_are_equal_where_no_bound_is_active(given_groups, share, low, high):
    s, n = given_groups
    top = 12.0 if np.isinf(high) else high
    total = n.sum() * (low + share * (top - low))
    bits = water_filling(s, n, total, low=low, high=high)
    assert (bits >= low).all()
    assert (bits <= high).all()
    live = s > 0
    possible = np.where(live, high, low) @ n if np.isfinite(high) or not live.any() else np.inf
    wanted = min(total, possible) if live.any() else low * n.sum()
    assert n @ bits == pytest.approx(wanted, rel=1e-9)
    # Karush, Kuhn, Tucker: one level; not above it at `low`, not below it at `high`.
    marginal = np.log2(np.maximum(s, 1e-300) / n) - 2 * bits
    free = live & (bits > low + 1e-9) & (bits < high - 1e-9)
    if free.any():
        level = marginal[free][0]
        assert marginal[free] == pytest.approx(level, abs=1e-6)
        assert (marginal[live & (bits <= low + 1e-9)] <= level + 1e-6).all()
        assert (marginal[live & (bits >= high - 1e-9)] >= level - 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(groups(), st.floats(0.1, 1))
def test_rounding_is_the_best_of_up_and_down(given_groups, share):
    s, n = given_groups
    total = share * 8 * n.sum()
    real = water_filling(s, n, total, high=8)
    found = whole_bits(real, s, n, total)
    down, up = np.floor(real + 1e-9), np.ceil(real - 1e-9)
    options = [np.array(b) for b in product(*zip(down, up, strict=True)) if n @ np.array(b) <= total]
    best = min(s @ 4.0**-b for b in options)
    assert n @ found <= total
    assert s @ 4.0 ** -found.astype(float) == pytest.approx(best, rel=1e-7)


@settings(max_examples=40, deadline=None)
@given(groups(), st.floats(0.3, 0.9))
def test_the_real_optimum_bounds_the_exact_one_in_whole_bits(given_groups, share):
    s, n = given_groups
    problem = bit_allocation(s, n, np.arange(1, 9))
    total = share * 8 * n.sum()
    real = s @ 4.0 ** -water_filling(s, n, total, low=1, high=8)
    choice = exhaustive(problem, max_cost=total)
    assert real <= problem.loss_of(choice) * (1 + 1e-9)
    assert problem.loss_of(exact(problem, max_cost=total)) == pytest.approx(problem.loss_of(choice), rel=1e-6)


def test_equal_groups_share_equally_and_four_times_the_sensitivity_is_one_bit_more():
    assert water_filling(np.ones(3), np.ones(3), 12.0).tolist() == [4.0, 4.0, 4.0]
    assert water_filling(np.array([4.0, 1.0]), np.ones(2), 9.0).tolist() == [5.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([-1.0]), np.ones(1), 4.0), "sensitivity must be finite and at least 0, got -1"),
        ((np.ones(1), np.zeros(1), 4.0), "size must be finite and positive, got 0"),
        ((np.ones(2), np.ones(3), 4.0), "1-D and equal in shape"),
        ((np.ones(2), np.ones(2), 3.0), "total_bits must be at least 4, low for all, got 3"),
    ],
)
def test_bad_values_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        water_filling(*arguments, low=2.0)


def test_bad_bounds_are_refused():
    with pytest.raises(ValueError, match=r"low must be in 0\.\.high, got low 5 and high 4"):
        water_filling(np.ones(1), np.ones(1), 9.0, low=5, high=4)
