"""Frontiers and their distances, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.accuracy.peppp.frontier import convergence, frontier, hypervolume_difference

MEMORY = [0.0, 5.0, 10.0, 10.0]
ERRORS = [1.0, 0.5, 0.0, 1.0]


def test_of_equals_the_first_is_kept_and_memory_ascends():
    found = frontier([2.0, 1.0, 2.0, 1.0, 3.0], [0.1, 0.4, 0.1, 0.5, 0.1])
    assert found.indices.tolist() == [1, 0]
    assert found.memory.tolist() == [1.0, 2.0]
    assert found.errors.tolist() == [0.4, 0.1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_points_are_on_the_frontier_exactly_if_nothing_dominates_them(points):
    memory, errors = np.array(points, dtype=float).T
    kept = frontier(memory, errors).indices
    values = {points[i] for i in kept}
    for m, e in points:
        beaten = any(a <= m and b <= e and (a, b) != (m, e) for a, b in points)
        assert ((m, e) in values) != beaten
    assert len(values) == len(kept)


def test_convergence_is_the_mean_distance_on_normalised_axes():
    assert convergence([0, 1, 2], MEMORY, ERRORS) == 0.0
    assert convergence([1], MEMORY, ERRORS) == 0.0  # a part of the frontier is on it
    # The last configuration lies at (1, 1): 1 from (0, 1), 1 from (1, 0), sqrt(0.5) from (0.5, 0.5).
    assert convergence([3], MEMORY, ERRORS) == pytest.approx(np.sqrt(0.5))
    assert convergence([0, 3], MEMORY, ERRORS) == pytest.approx(np.sqrt(0.5) / 2)


def test_the_hypervolume_difference_has_a_fixed_reference_point():
    # True frontier: boxes 1.1 x 0.1, 0.6 x 0.5, 0.1 x 0.5 to the corner (1.1, 1.1).
    whole = 0.11 + 0.30 + 0.05
    assert hypervolume_difference([0, 1, 2], MEMORY, ERRORS) == pytest.approx(0.0)
    assert hypervolume_difference([1], MEMORY, ERRORS) == pytest.approx(whole - 0.6 * 0.6)
    assert hypervolume_difference([3], MEMORY, ERRORS) == pytest.approx(whole - 0.01)
    assert hypervolume_difference([1], MEMORY, ERRORS, margin=0.0) == pytest.approx(0.25 - 0.25)


def test_units_change_nothing():
    sizes, errors = np.array(MEMORY) * 1024 + 7, np.array(ERRORS) * 0.3 + 0.2
    assert convergence([0, 3], sizes, errors) == pytest.approx(convergence([0, 3], MEMORY, ERRORS))
    assert hypervolume_difference([1], sizes, errors) == pytest.approx(
        hypervolume_difference([1], MEMORY, ERRORS)
    )


def test_a_constant_axis_is_no_distance():
    assert convergence([0], [1.0, 2.0], [0.5, 0.5]) == 0.0
    assert convergence([1], [1.0, 2.0], [0.5, 0.5]) == 1.0


def test_bad_input_is_refused_in_one_line():
    for metric in (convergence, hypervolume_difference):
        with pytest.raises(ValueError, match="at least one point"):
            metric([], MEMORY, ERRORS)
        with pytest.raises(ValueError, match=r"indices must be in 0..3, got 4"):
            metric([4], MEMORY, ERRORS)
    with pytest.raises(ValueError, match=r"one shape, .* got \(2,\) and \(3,\)"):
        frontier([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="must not be NaN"):
        frontier([1.0, np.nan], [1.0, 2.0])
