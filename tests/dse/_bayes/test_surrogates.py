import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse._bayes.columns import Columns
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


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_are_the_textbook_formulas_in_the_units_of_the_target(family):
    rows, y = data(15)
    model = fit_gp(rows, y, MIXED, family=family)
    new, _ = data(5, seed=2)
    spread, centre = y.std(), y.mean()

    def prior(a, b):
        return spread**2 * model.process.inputs.cross(a, b, model.process.theta)

    measured = prior(rows, rows) + model.noise * np.eye(15)
    cross = prior(new, rows)
    mean, deviation = model.predict(new)
    np.testing.assert_allclose(mean, centre + cross @ np.linalg.solve(measured, y - centre), rtol=1e-5)
    covariance = prior(new, new) - cross @ np.linalg.solve(measured, cross.T)
    np.testing.assert_allclose(model.covariance(new, new), covariance, atol=1e-5)
    np.testing.assert_allclose(model.covariance(new, rows[:3])[:, :2], model.covariance(new, rows[:2]))
    np.testing.assert_allclose(deviation**2, np.diagonal(covariance) + model.noise, rtol=1e-4)


@given(st.integers(0, 10_000), st.sampled_from(FAMILIES))
@settings(max_examples=15, deadline=None)
def test_scale_and_shift_of_the_target_change_the_prediction_alone(seed, family):
    rows, y = data(12, seed)
    new, _ = data(4, seed + 1)
    mean, deviation = fit_gp(rows, y, MIXED, family=family).predict(new)
    other_mean, other_deviation = fit_gp(rows, 100 * y - 7, MIXED, family=family).predict(new)
    np.testing.assert_allclose(other_mean, 100 * mean - 7, rtol=1e-3)
    np.testing.assert_allclose(other_deviation, 100 * deviation, rtol=1e-2)


def test_columns_that_do_not_vary_are_left_out_of_the_fit():
    rows, y = data(12)
    rows[:, 1], rows[:, 2] = 0.5, 1.0
    model = fit_gp(rows, y, MIXED)
    changed = rows.copy()
    changed[:, 1], changed[:, 2] = 0.9, 2.0
    np.testing.assert_array_equal(model.predict(rows)[0], model.predict(changed)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_column_that_varies_the_prediction_is_the_mean(family):
    rows, y = np.ones((6, 2)), np.arange(6.0)
    model = fit_gp(rows, y, Columns((0,), (1,)), family=family)
    mean, deviation = model.predict(np.array([[0.3, 2.0]]))
    assert mean[0] == pytest.approx(2.5)
    assert 0.5 * y.std() < deviation[0] < 2 * y.std()


def test_a_trend_is_followed_where_there_are_no_rows():
    rows = np.random.default_rng(0).random((8, 1)) * 0.2
    with_trend = np.column_stack([rows, 17.0 * rows])
    model = fit_gp(with_trend, 5 * rows[:, 0], Columns((0,), trend=(1,)))
    far = np.array([[1.0, 17.0]])
    assert model.predict(far)[0][0] == pytest.approx(5.0, rel=0.1)


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
