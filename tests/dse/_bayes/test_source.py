from dataclasses import dataclass

import numpy as np
import pytest

from dse._bayes.models import Columns, ModelError
from dse._bayes.source import SourceOutcome


@dataclass(frozen=True)
class Results:
    name: str
    rows: np.ndarray
    y: np.ndarray


def results(n: int = 40, seed: int = 0) -> Results:
    """Times over three decades of two numeric columns and one of categories."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.random((n, 2)), rng.integers(0, 2, n)])
    return Results("old", rows, truth(rows))


def truth(rows: np.ndarray) -> np.ndarray:
    return np.exp(7.0 * (rows[:, 0] - 0.6) ** 2 + 3.0 * rows[:, 1] + rows[:, 2])


COLUMNS = Columns((0, 1), (2,))


def test_the_best_designs_of_a_wide_range_are_told_apart():
    probe = results(200, seed=1).rows
    best = np.argsort(truth(probe))[:40]
    wanted = np.log(truth(probe[best]))
    predicted = SourceOutcome(results(), COLUMNS, seed=0).predict(probe[best])
    assert np.corrcoef(predicted, wanted)[0, 1] > 0.9


def test_predictions_are_standardised():
    source = results()
    predicted = SourceOutcome(source, COLUMNS, seed=0).predict(source.rows)
    assert abs(predicted.mean()) < 0.05
    assert predicted.std() == pytest.approx(1.0, abs=0.1)


def test_a_column_that_the_source_lacks_changes_nothing():
    source = results()
    rows = source.rows.copy()
    rows[:, 1] = np.nan
    model = SourceOutcome(Results("old", rows, source.y), COLUMNS, seed=0)
    moved = source.rows.copy()
    moved[:, 1] = 1.0 - moved[:, 1]
    np.testing.assert_array_equal(model.predict(source.rows), model.predict(moved))


def test_of_many_rows_a_part_is_fitted_the_same_every_time():
    many = results(210)
    first, second = (SourceOutcome(many, COLUMNS, seed=3).predict(many.rows) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_rows_that_do_not_vary_are_refused():
    with pytest.raises(ModelError, match="varies"):
        SourceOutcome(Results("old", np.zeros((9, 3)), np.arange(9.0)), COLUMNS, seed=0)
