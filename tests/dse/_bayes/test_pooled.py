import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from dse._bayes.gp import GaussianProcess
from dse._bayes.pooled import Part, PooledInputs, fit_pooled

RNG = np.random.default_rng(0)
PARTS = (
    Part(columns=(0, 1), own=False, variance=1.0),
    Part(columns=(2,), own=True, variance=0.3),
    Part(columns=(), own=True, variance=0.2),
)


def data(n=40, tasks=3):
    rng = np.random.default_rng(1)  # of its own: the order of the tests changes no data
    rows, task = rng.normal(size=(n, 3)), rng.integers(0, tasks, n)
    return np.column_stack([rows, task]), np.sin(rows[:, 0]) + 0.3 * task + 0.05 * rng.normal(size=n)


def test_gradients_are_those_of_differences():
    rows, _ = data(12)
    inputs = PooledInputs(PARTS)
    left, right = np.triu_indices(len(rows))
    pairs, weights = inputs.pairs(rows, left, right), RNG.normal(size=len(left))
    theta = inputs.prior.mean + 0.3 * RNG.normal(size=len(inputs.prior.mean))
    value, pull = pairs(theta)
    assert value == pytest.approx(inputs.cross(rows, rows, theta)[left, right], abs=1e-12)
    gradient = pull(weights)
    assert gradient.shape == theta.shape
    for index in range(len(theta)):
        step = np.zeros_like(theta)
        step[index] = 1e-5
        slope = weights @ (pairs(theta + step)[0] - pairs(theta - step)[0]) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_the_diagonal_is_that_of_the_covariance():
    rows, _ = data()
    inputs = PooledInputs(PARTS)
    theta = inputs.prior.mean
    assert inputs.diagonal(rows, theta) == pytest.approx(np.diag(inputs.cross(rows, rows, theta)))


def test_one_task_is_the_process_of_scikit_learn():
    rows, y = data(30, 1)
    inputs = PooledInputs((Part(columns=(0, 1, 2), own=False, variance=1.0),))
    theta = np.log([0.8, 1.5, 2.0, 1.7, 0.02])  # lengthscales, variance, noise
    found = GaussianProcess(inputs, rows, y, theta)
    kernel = 1.7 * Matern([0.8, 1.5, 2.0], nu=2.5) + WhiteKernel(0.02)
    other = GaussianProcessRegressor(kernel, optimizer=None).fit(rows[:, :3], y)
    new = np.column_stack([RNG.normal(size=(9, 3)), np.zeros(9)])
    mean, deviation = other.predict(new[:, :3], return_std=True)
    ours, variance = found.predict(new)
    assert ours == pytest.approx(mean, abs=1e-5)
    assert np.sqrt(variance + 0.02) == pytest.approx(deviation, abs=1e-5)


def test_a_part_of_its_own_knows_nothing_of_other_tasks():
    rows, y = data(30, 1)
    inputs = PooledInputs((Part(columns=(0, 1, 2), own=True, variance=1.0),))
    found = GaussianProcess(inputs, rows, y, np.log([1.0, 1.0, 1.0, 1.3, 0.01]))
    elsewhere = np.column_stack([rows[:, :3], np.ones(30)])
    mean, variance = found.predict(elsewhere)
    assert mean == pytest.approx(np.zeros(30))
    assert variance == pytest.approx(np.full(30, 1.3))


def test_a_fit_finds_what_is_shared():
    rows, y = data(120)
    found = fit_pooled(PARTS, rows, (y - y.mean()) / y.std())
    fresh = np.column_stack([RNG.normal(size=(40, 3)), np.full(40, 9)])
    mean, _ = found.predict(fresh)
    assert np.corrcoef(mean, np.sin(fresh[:, 0]))[0, 1] > 0.95
