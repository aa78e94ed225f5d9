import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse import hypervolume, non_dominated

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
