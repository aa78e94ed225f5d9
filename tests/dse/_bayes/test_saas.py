import numpy as np
import pytest

from dse._bayes.saas import fit_saas
from dse._bayes.surrogates import Columns, FitError, fit_gp


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    rows = rng.random((30, 20))
    new = rng.random((100, 20))
    return rows, target(rows), new, target(new), fit_saas(rows, target(rows), Columns(tuple(range(20))))


def target(rows):
    return 5 + np.sin(4 * rows[:, 3]) + rows[:, 11] ** 2


def test_two_columns_of_twenty_are_found(problem):
    rows, y, new, truth, model = problem
    sparse = np.sqrt(np.mean((model.predict(new)[0] - truth) ** 2))
    plain = np.sqrt(np.mean((fit_gp(rows, y, Columns(tuple(range(20)))).predict(new)[0] - truth) ** 2))
    assert sparse < 0.5 * plain


def test_covariance_agrees_with_the_predicted_deviation(problem):
    _, _, new, _, model = problem
    _, deviation = model.predict(new[:8])
    some = new[:8]
    np.testing.assert_allclose(model.covariance(some, some), model.covariance(some, some.copy()), rtol=1e-6)
    np.testing.assert_allclose(
        np.diagonal(model.covariance(new[:8], new[:8])) + model.noise, deviation**2, rtol=1e-4
    )


def test_left_out_predictions_tell_of_the_error(problem):
    _, _, new, truth, model = problem
    error = np.sqrt(np.mean((model.predict(new)[0] - truth) ** 2))
    assert 0.2 * error < model.loo.rmse < 5 * error
    assert np.isfinite(model.loo.log_density)


def test_categories_become_indicators():
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.random(25), rng.integers(3, size=25)])
    y = rows[:, 0] + 2.0 * (rows[:, 1] == 2)
    model = fit_saas(rows, y, Columns((0,), (1,)))
    mean, _ = model.predict(np.array([[0.5, 0.0], [0.5, 2.0]]))
    assert mean[1] - mean[0] == pytest.approx(2.0, abs=0.2)


def test_nothing_that_varies_is_refused():
    with pytest.raises(FitError, match="none of the columns varies"):
        fit_saas(np.ones((4, 2)), np.arange(4.0), Columns((0, 1)))
