import numpy as np
import pytest

from dse._bayes.columns import Columns
from dse._bayes.loo import LeaveOneOut, leave_one_out
from dse._bayes.surrogates import fit_gp


@pytest.mark.parametrize("family", ["matern32", "additive"])
def test_closed_form_equals_refits_without_each_row(family):
    rng = np.random.default_rng(1)
    rows = rng.random((12, 3))
    y = rows @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_normal(12)
    scale = (float(y.mean()), float(y.std()))
    columns = Columns((0, 1, 2))
    model = fit_gp(rows, y, columns, family=family)
    kept_at = {"start": model.process.theta, "steps": 0, "scale": scale}
    for left in range(12):
        kept = np.arange(12) != left
        # The same hyper-parameters, mean and scale: nothing is refitted.
        other = fit_gp(rows[kept], y[kept], columns, family=family, **kept_at)
        mean, deviation = other.predict(rows[left : left + 1])
        assert model.loo.mean[left] == pytest.approx(mean[0], rel=1e-6)
        assert model.loo.variance[left] == pytest.approx(deviation[0] ** 2, rel=1e-6)


def test_closed_form_with_a_trend_equals_refits():
    rng = np.random.default_rng(2)
    rows = rng.random((9, 2))
    y = 3 * rows[:, 0] + rng.standard_normal(9)
    scale = (float(y.mean()), float(y.std()))
    rows, columns = np.column_stack([rows, rows[:, 0] ** 2]), Columns((0, 1), trend=(2,))
    model = fit_gp(rows, y, columns)
    kept = np.arange(9) != 4
    other = fit_gp(rows[kept], y[kept], columns, start=model.process.theta, steps=0, scale=scale)
    assert model.loo.mean[4] == pytest.approx(other.predict(rows[4:5])[0][0], rel=1e-6)


def test_quality_by_hand():
    loo = LeaveOneOut(np.array([1.0, 2.0]), np.array([0.0, 2.0]), np.array([1.0, 4.0]))
    assert loo.rmse == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(loo.standardised, [1.0, 0.0])
    first, second = -0.5 * np.log(2 * np.pi) - 0.5, -0.5 * np.log(8 * np.pi)
    assert loo.log_density == pytest.approx((first + second) / 2)


def test_independent_measurements_tell_nothing_of_each_other():
    loo = leave_one_out(np.diag([0.5, 2.0]), np.array([3.0, -1.0]))
    np.testing.assert_allclose(loo.mean, 0.0)
    np.testing.assert_allclose(loo.variance, [2.0, 0.5])


def test_shapes_and_variances_are_checked():
    with pytest.raises(ValueError, match=r"must be \(n,\)"):
        LeaveOneOut(np.zeros(2), np.zeros(3), np.ones(2))
    with pytest.raises(ValueError, match="variance must be positive, got 0"):
        LeaveOneOut(np.zeros(2), np.zeros(2), np.array([1.0, 0.0]))
