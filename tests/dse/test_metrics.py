import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse.metrics import adrs, hypervolume, hypervolume_regret, non_dominated

grids = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 4))
)


@given(values=grids)
def test_non_dominated_rows_are_those_no_other_row_beats(values):
    def dominates(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)

    expected = [not any(dominates(other, row) for other in values) for row in values]
    assert non_dominated(values).tolist() == expected


@given(values=grids)
def test_hypervolume_of_a_grid_is_the_number_of_dominated_cells(values):
    corner = 5
    cells = sum(
        any(all(low <= c for low, c in zip(row, cell, strict=True)) for row in values)
        for cell in itertools.product(range(corner), repeat=values.shape[1])
    )
    assert hypervolume(values, [corner] * values.shape[1]) == cells


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_hypervolume_agrees_with_monte_carlo(m):
    rng = np.random.default_rng(m)
    values = rng.random((15, m))
    points = rng.random((200_000, m)) * 1.1
    inside = np.zeros(len(points), dtype=bool)
    for row in values:
        inside |= (points >= row).all(axis=1)
    share = inside.mean()
    # Six standard errors of the share.
    tolerance = 6 * 1.1**m * np.sqrt(share * (1 - share) / len(points))
    assert hypervolume(values, [1.1] * m) == pytest.approx(share * 1.1**m, abs=tolerance)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("m", [2, 3, 4])
def test_hypervolume_agrees_with_botorch(m):
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    values = np.random.default_rng(m).standard_normal((30, m))
    front = torch.from_numpy(-values[non_dominated(values)])
    theirs = Hypervolume(torch.full((m,), -1.0, dtype=torch.double)).compute(front)
    assert hypervolume(values, [1.0] * m) == pytest.approx(theirs, rel=1e-12)


def test_rows_outside_the_reference_add_nothing():
    assert hypervolume([[1.0, 1.0]], [2.0, 3.0]) == 2.0
    assert hypervolume([[1.0, 1.0], [0.0, 3.0], [-9.0, 4.0]], [2.0, 3.0]) == 2.0
    assert hypervolume(np.empty((0, 2)), [2.0, 3.0]) == 0.0


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        ([1.0, 2.0], [3.0], r"shape \(n, m\) with m at least 1, got \(2,\)"),
        ([[1.0, np.nan]], [3.0, 3.0], "must not be NaN"),
        ([[1.0, 2.0]], [3.0], r"reference must have the shape \(2,\), got \(1,\)"),
        ([[1.0, 2.0]], [3.0, np.inf], "reference must be finite"),
    ],
)
def test_bad_arguments_are_named(values, reference, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(values, reference)


def test_non_dominated_of_a_large_table_keeps_equal_rows_and_is_quick():
    values = np.random.default_rng(0).integers(1, 400, (40_000, 2)).astype(float)
    mask = non_dominated(values)
    # A staircase, found by a sweep in another way.
    order = np.lexsort((values[:, 1], values[:, 0]))
    best, front = np.inf, set()
    for x, y in values[order]:
        if y < best:
            best = y
            front.add((x, y))
    assert {tuple(row) for row in values[mask]} == front
    assert mask.sum() == sum(tuple(row) in front for row in values)


positive = st.tuples(st.integers(1, 8), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(1, 5))
)


@given(values=positive, data=st.data())
def test_adrs_is_the_formula_term_by_term(values, data):
    front = values[non_dominated(values)]
    chosen = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1))
    found = values[chosen]
    total = 0.0
    for truth in front:
        best = float("inf")
        for row in found:
            best = min(best, max(max(0.0, (s - p) / p) for s, p in zip(row, truth, strict=True)))
        total += best
    assert adrs(found, front) == pytest.approx(total / len(front))
    assert adrs(values, front) == 0.0


def test_adrs_of_nothing_is_infinite():
    assert adrs(np.empty((0, 2)), [[1.0, 2.0]]) == float("inf")


@given(values=grids, data=st.data())
def test_hypervolume_regret_is_the_share_of_missing_cells(values, data):
    # Every objective ranges over 0..10, so that the corner is 11 and a cell has the side 1.
    m = values.shape[1]
    table = np.vstack([2 * values, 10 * np.eye(m, dtype=int), np.full(m, 10)])
    table = np.vstack([table, np.zeros(m, dtype=int)]) if np.any(table.min(axis=0) > 0) else table
    found = table[data.draw(st.lists(st.integers(0, len(table) - 1)))].reshape(-1, m)
    cells = np.array(list(itertools.product(range(11), repeat=m)))

    def dominated(rows):
        return sum(np.any([(row <= cells).all(axis=1) for row in rows], axis=0)) if len(rows) else 0

    expected = 1 - dominated(found) / dominated(table)
    assert hypervolume_regret(found, table) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adrs([[1.0]], np.empty((0, 1))), "front must have at least one row"),
        (lambda: adrs([[1.0]], [[1.0, 2.0]]), r"as many columns, got \(1, 1\) and \(1, 2\)"),
        (lambda: adrs([[1.0]], [[0.0]]), "front must be positive, got 0.0"),
        (lambda: hypervolume_regret([[1.0]], np.empty((0, 1))), "everything must have at least one row"),
        (lambda: hypervolume_regret([[1.0]], [[1.0, 2.0]]), "as many columns"),
        (
            lambda: hypervolume_regret([[1.0, 2.0]], [[1.0, 2.0], [3.0, 2.0]]),
            "objective 1 must vary, got 2.0",
        ),
    ],
)
def test_bad_arguments_of_the_distances_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
