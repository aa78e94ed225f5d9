import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from dse._bayes import gp
from dse._bayes.columns import Columns
from dse._bayes.coregionalisation import TaskInputs
from dse._bayes.kernels import Inputs, Kernel, prior

SHAPES = ("rbf", "matern32", "matern52", "product32", "additive")
COLUMNS = Columns((0, 1), (2,), trend=(3,))
KERNELS = [
    *(Kernel(shape) for shape in SHAPES),
    Kernel("matern52", linear=True),
    Kernel("rbf", linear=True, levels=True),
    Kernel("additive", linear=True, levels=True, trend=True),
    Kernel("matern52", linear=True, trend=True),
]
INPUTS = [Inputs(kernel, COLUMNS, (0,)) for kernel in KERNELS] + [
    TaskInputs(Inputs(Kernel(shape), COLUMNS), 3) for shape in ("additive", "product32")
]
each_kernel = pytest.mark.parametrize(
    "inputs", INPUTS, ids=[*map(str, KERNELS), "tasks of additive", "tasks of product32"]
)


def mixed(n: int, seed: int = 0) -> np.ndarray:
    """Two ordered columns, the first of few values, three codes, predictions, and three tasks."""
    rng = np.random.default_rng(seed)
    parts = (rng.random(n).round(1), rng.random(n), rng.integers(3, size=n), rng.standard_normal(n))
    return np.column_stack([*parts, rng.integers(3, size=n)])


def some_theta(inputs, seed: int = 0) -> np.ndarray:
    start = prior(inputs).start
    return start + 0.4 * np.random.default_rng(seed).standard_normal(len(start))


@each_kernel
def test_covariances_are_positive_definite_and_symmetric(inputs):
    rows, theta = mixed(30), some_theta(inputs)
    covariance = inputs.cross(rows, rows, theta)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    np.testing.assert_allclose(np.diag(covariance), inputs.diagonal(rows, theta), rtol=1e-9)


@each_kernel
def test_pairs_have_the_covariances_of_the_matrix(inputs):
    rows, theta = mixed(12), some_theta(inputs)
    left, right = np.triu_indices(12)
    values, _ = inputs.pairs(rows, left, right)(theta)
    np.testing.assert_allclose(values, inputs.cross(rows, rows, theta)[left, right], atol=1e-12)


@each_kernel
def test_the_gradient_of_every_pair_is_that_of_differences(inputs):
    rows, theta = mixed(8), some_theta(inputs, 1)[:-1]
    pairs = inputs.pairs(rows, *np.triu_indices(8))
    values, pull = pairs(theta)
    gradients = np.array([pull(one) for one in np.eye(len(values))])
    for place in range(len(theta)):
        step = np.zeros_like(theta)
        step[place] = 1e-5
        numeric = (pairs(theta + step)[0] - pairs(theta - step)[0]) / 2e-5
        np.testing.assert_allclose(gradients[:, place], numeric, rtol=1e-6, atol=1e-8)


@each_kernel
def test_the_gradient_of_the_posterior_density_is_that_of_differences(inputs):
    rows = mixed(12)
    y = np.sin(5 * rows[:, 0]) + rows[:, 1] ** 2 + rows[:, 2]
    objective = gp._NegativeLogPosterior(inputs, rows, y, prior(inputs))
    theta = some_theta(inputs, 1)
    numeric = approx_fprime(theta, lambda point: objective(point)[0], 1e-6)
    np.testing.assert_allclose(objective(theta)[1], numeric, rtol=1e-3, atol=1e-3)


def by_hand(shape: str, theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Covariance without the mean's over columns 0 and 1, which are ordered, and 2, which is categorical."""
    lengths, scale = np.exp(theta[:3]), math.exp(theta[6 if shape == "additive" else 3])
    r = [abs(a[0] - b[0]) / lengths[0], abs(a[1] - b[1]) / lengths[1], (a[2] != b[2]) / lengths[2]]
    if shape == "additive":
        first, second, third = np.exp(theta[3:6])
        z = [math.exp(-0.5 * v**2) for v in r]
        pairs = (z[0] * z[1] + z[0] * z[2] + z[1] * z[2]) / 3
        return scale * (first * sum(z) / 3 + second * pairs + third * z[0] * z[1] * z[2])
    s = math.hypot(*r)
    return (
        scale
        * {
            "rbf": math.exp(-0.5 * s * s),
            "matern32": (1 + math.sqrt(3) * s) * math.exp(-math.sqrt(3) * s),
            "matern52": (1 + math.sqrt(5) * s + 5 * s * s / 3) * math.exp(-math.sqrt(5) * s),
            "product32": math.prod((1 + math.sqrt(3) * v) * math.exp(-math.sqrt(3) * v) for v in r),
        }[shape]
    )


@given(st.sampled_from(SHAPES), st.integers(0, 1000))
@settings(max_examples=25)
def test_kernels_are_their_formulas(shape, seed):
    inputs = Inputs(Kernel(shape), COLUMNS)
    rows, theta = mixed(6, seed), some_theta(inputs, seed)
    expected = [[1.0 + by_hand(shape, theta, a, b) for b in rows[:4]] for a in rows]
    np.testing.assert_allclose(inputs.cross(rows, rows[:4], theta), expected, rtol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_large_matrices_are_computed_in_parts(shape, monkeypatch):
    inputs = Inputs(Kernel(shape, linear=True), COLUMNS)
    rows, theta = mixed(40), some_theta(inputs)
    whole = inputs.cross(rows, rows[:30], theta)
    monkeypatch.setattr("dse._bayes.kernels._PART", 64)
    np.testing.assert_allclose(inputs.cross(rows, rows[:30], theta), whole, rtol=1e-12)


def test_tasks_covary_by_their_loadings():
    inputs = TaskInputs(Inputs(Kernel("rbf"), Columns((0,))), 2)
    rows = np.array([[0.3, 0.0], [0.3, 1.0]])
    theta = np.concatenate([[0.0, math.log(2.0)], [0.9, -0.5], np.log([0.1, 0.2])])
    covariance = inputs.cross(rows, rows, theta)
    expected = [[2 * (0.81 + 0.1) + 1, 2 * -0.45], [2 * -0.45, 2 * (0.25 + 0.2) + 1]]
    np.testing.assert_allclose(covariance, expected)
