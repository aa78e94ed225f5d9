import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse._bayes.columns import Columns
from dse._bayes.families import Kernel
from dse._bayes.surrogates import fit_gp

FAMILIES = ("rbf", "matern32", "matern52", "product32", "additive")
MIXED = Columns((0, 1), (2,), (3,))


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two numeric columns, one of three codes, and a feature; and a smooth target of all."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.random((n, 2)), rng.integers(3, size=n), rng.random(n)])
    y = np.sin(4 * rows[:, 0]) + rows[:, 1] ** 2 + 0.5 * (rows[:, 2] == 1) + rows[:, 3]
    return rows, 10 + 3 * y


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_predicts_a_smooth_target_better_than_its_mean_by_far(family):
    rows, y = data(60)
    new, truth = data(200, seed=1)
    mean, deviation = fit_gp(rows, y, MIXED, family=family).predict(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.2 * truth.std()
    assert (deviation > 0).all()


def kernel_by_hand(family: str, theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """One entry of the kernel over columns 0 and 1, which are ordered, and 2, which is categorical."""
    scale = math.exp(theta[1])
    offset = 3 if family == "additive" else 0
    lengths, change = np.exp(theta[2 + offset : 4 + offset]), math.exp(theta[4 + offset])
    r = [abs(a[i] - b[i]) / lengths[i] for i in range(2)]
    category = math.exp(-1 / change) if a[2] != b[2] else 1.0
    if family == "additive":
        first, second, third = np.exp(theta[2:5])
        z = [math.exp(-0.5 * r[0] ** 2), math.exp(-0.5 * r[1] ** 2), category]
        pairs = (z[0] * z[1] + z[0] * z[2] + z[1] * z[2]) / 3
        return scale * (first * sum(z) / 3 + second * pairs + third * z[0] * z[1] * z[2])
    s = math.hypot(*r)
    shape = {
        "rbf": math.exp(-0.5 * s * s),
        "matern32": (1 + math.sqrt(3) * s) * math.exp(-math.sqrt(3) * s),
        "matern52": (1 + math.sqrt(5) * s + 5 * s * s / 3) * math.exp(-math.sqrt(5) * s),
        "product32": math.prod((1 + math.sqrt(3) * v) * math.exp(-math.sqrt(3) * v) for v in r),
    }[family]
    return scale * shape * category


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_are_their_formulas(family):
    import torch

    kernel = Kernel(family, (0, 1), (2,))
    rng = np.random.default_rng(3)
    theta = rng.normal(0, 0.5, sum(block.size for block in kernel.blocks))
    rows = np.column_stack([rng.random((6, 2)), rng.integers(2, size=6)])
    matrix = kernel.matrix(kernel.split(torch.from_numpy(theta)), rows, rows[:4])
    expected = [[kernel_by_hand(family, theta, a, b) for b in rows[:4]] for a in rows]
    np.testing.assert_allclose(matrix, expected, rtol=1e-5)


def test_predictions_are_the_textbook_formulas():
    rows, y = data(15)
    model = fit_gp(rows, y, MIXED)
    new, _ = data(5, seed=2)
    spread, centre = y.std(), y.mean()
    kernel, parameters = model._kernel, model.parameters

    def prior(a, b):
        return spread**2 * (kernel.matrix(parameters, a, b) + 1.0)

    measured = prior(rows, rows) + model.noise * np.eye(15)
    cross = prior(new, rows)
    mean, deviation = model.predict(new)
    np.testing.assert_allclose(mean, centre + cross @ np.linalg.solve(measured, y - centre))
    covariance = prior(new, new) - cross @ np.linalg.solve(measured, cross.T)
    np.testing.assert_allclose(model.covariance(new, new), covariance, atol=1e-8)
    np.testing.assert_allclose(deviation**2, np.diagonal(covariance) + model.noise)


@given(st.integers(0, 10_000), st.sampled_from(FAMILIES))
@settings(max_examples=15, deadline=None)
def test_scale_and_shift_of_the_target_change_the_prediction_alone(seed, family):
    rows, y = data(12, seed)
    new, _ = data(4, seed + 1)
    mean, deviation = fit_gp(rows, y, MIXED, family=family).predict(new)
    other_mean, other_deviation = fit_gp(rows, 100 * y - 7, MIXED, family=family).predict(new)
    np.testing.assert_allclose(other_mean, 100 * mean - 7, rtol=1e-3)
    np.testing.assert_allclose(other_deviation, 100 * deviation, rtol=1e-2)


def test_the_gradient_leads_to_a_stationary_point():
    from scipy.optimize import approx_fprime

    from dse._bayes import surrogates

    rows, y = data(20)
    kernel = Kernel("matern52", (0, 1, 3), (2,))
    z = (y - y.mean()) / y.std()
    seen = {}

    def spy(function, start, **options):
        seen["function"], seen["start"] = function, start
        return type("Result", (), {"x": start})

    original, surrogates.minimize = surrogates.minimize, spy
    try:
        theta = np.concatenate([np.full(b.size, b.start) for b in kernel.blocks])
        surrogates._optimise(kernel, theta, rows, z, np.ones((20, 20)), 1)
    finally:
        surrogates.minimize = original
    value, slope = seen["function"](theta)
    numeric = approx_fprime(theta, lambda t: seen["function"](t)[0], 1e-6)
    assert math.isfinite(value)
    np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=1e-4)


def test_columns_that_do_not_vary_are_left_out_of_the_fit():
    rows, y = data(12)
    rows[:, 1], rows[:, 2] = 0.5, 1.0
    model = fit_gp(rows, y, MIXED)
    changed = rows.copy()
    changed[:, 1], changed[:, 2] = 0.9, 2.0
    np.testing.assert_array_equal(model.predict(rows)[0], model.predict(changed)[0])


def test_a_trend_is_followed_where_there_are_no_rows():
    rng = np.random.default_rng(0)
    rows = rng.random((8, 1)) * 0.2
    model = fit_gp(rows, 5 * rows[:, 0], Columns((0,)), trend=lambda at: 17.0 * at)
    far = np.array([[1.0]])
    assert model.predict(far)[0][0] == pytest.approx(5.0, rel=0.1)
    assert model.trend_weights.shape == (1,)


def test_equal_calls_give_equal_models():
    rows, y = data(20)
    first, second = (fit_gp(rows, y, MIXED, seed=seed).predict(rows)[0] for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("rows", "y", "message"),
    [
        (np.zeros((3, 1)), np.zeros(2), r"rows must be \(n, c\) and y \(n,\), got \(3, 1\) and \(2,\)"),
        (np.zeros((1, 1)), np.zeros(1), "at least 2 rows, got 1"),
        (np.zeros((2, 1)), np.array([0.0, np.nan]), "finite"),
    ],
)
def test_bad_training_data_are_refused(rows, y, message):
    with pytest.raises(ValueError, match=message):
        fit_gp(rows, y, Columns((0,)))


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"family must be one of rbf, .*got 'cubic'"):
        fit_gp(np.eye(2), np.arange(2.0), Columns((0, 1)), family="cubic")


def test_a_start_of_another_size_is_refused():
    with pytest.raises(ValueError, match="start must have 4 hyper-parameters"):
        fit_gp(np.eye(2), np.arange(2.0), Columns((0, 1)), start=np.zeros(2))
