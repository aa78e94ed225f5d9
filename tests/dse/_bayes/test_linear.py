import numpy as np
import pytest

from dse._bayes.columns import Columns
from dse._bayes.gp import GaussianProcess
from dse._bayes.linear import QuadraticInputs, fit_linear

MIXED = Columns((0, 1), (2,), (3,))
THETA = np.log([2.0, 0.3, 0.05])


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.random((n, 2)), rng.integers(3, size=n), rng.random(n)])
    return rows, 1 + rows[:, 0] * rows[:, 1] - 2 * rows[:, 0] ** 2 + (rows[:, 2] == 1) * rows[:, 3]


def written_out(rows: np.ndarray) -> np.ndarray:
    """All functions of the rows of `data`, each times the square root of its coefficient's variance."""
    single = [2 * rows[:, c] - 1 for c in (0, 1, 3)] + [(rows[:, 2] == code) - 1 / 3 for code in range(3)]
    first, second = np.sqrt(np.exp(THETA[:2]))
    pairs = [(i, j) for i in range(6) for j in range(i, 6) if i < 3 or j < 3]
    products = [single[i] * single[j] for i, j in pairs]
    return np.column_stack(
        [np.ones(len(rows)), *(first * f for f in single), *(second * f for f in products)]
    )


def test_the_covariance_is_that_of_the_functions_written_out():
    rows, _ = data(12)
    inputs, functions = QuadraticInputs(rows, MIXED), written_out(rows)
    np.testing.assert_allclose(inputs.cross(rows, rows[:5], THETA), functions @ functions[:5].T)
    np.testing.assert_allclose(inputs.diagonal(rows, THETA), (functions**2).sum(axis=1))


def test_the_process_is_ridge_regression_of_scikit_learn():
    from sklearn.linear_model import Ridge

    rows, y = data(25)
    new, _ = data(8, seed=1)
    mean, _ = GaussianProcess(QuadraticInputs(rows, MIXED), rows, y, THETA).predict(new)
    ridge = Ridge(alpha=np.exp(THETA[2]), fit_intercept=False, solver="svd").fit(written_out(rows), y)
    np.testing.assert_allclose(mean, ridge.predict(written_out(new)), atol=1e-5)


def test_gradients_are_those_of_differences():
    rows, _ = data(7)
    pairs = QuadraticInputs(rows, MIXED).pairs(rows, *np.triu_indices(7))
    values, pull = pairs(THETA)
    gradients = np.array([pull(one) for one in np.eye(len(values))])
    for place, step in enumerate(1e-5 * np.eye(3)[:2]):
        numeric = (pairs(THETA + step)[0] - pairs(THETA - step)[0]) / 2e-5
        np.testing.assert_allclose(gradients[:, place], numeric, atol=1e-8)


def test_a_quadratic_function_is_recovered():
    rows, y = data(60)
    new, truth = data(40, seed=1)
    mean, deviation = fit_linear(rows, y, MIXED).predict(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.05 * truth.std()
    assert (deviation > 0).all()


@pytest.mark.parametrize("columns", [Columns((0,)), Columns((), (2,)), Columns((), (), (3,))])
def test_any_kind_of_column_alone_can_be_regressed_on(columns):
    rows, y = data(12)
    model = fit_linear(rows, y, columns)
    mean, deviation = model.predict(rows)
    covariance = model.covariance(rows, rows)
    np.testing.assert_allclose(np.diagonal(covariance) + model.noise, deviation**2, rtol=1e-6)
    assert np.mean((mean - y) ** 2) < y.var()
