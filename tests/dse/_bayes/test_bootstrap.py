import numpy as np
import pytest

from dse._bayes.bootstrap import fit_bootstrapped, pseudo_data
from dse._bayes.columns import Columns

COLUMNS = Columns((0, 1, 2))


def data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.random((n, 3))
    return rows, np.sin(6 * rows[:, 0]) + 2 * np.abs(rows[:, 1] - 0.4) + 0.05 * rng.standard_normal(n)


@pytest.mark.parametrize("resampling", ["residual", "parametric"])
def test_prediction_combines_the_resamples(resampling):
    rows, y = data(15, 0)
    new, _ = data(6, 1)
    model = fit_bootstrapped(rows, y, COLUMNS, resamples=5, resampling=resampling)
    each = [member.predict(new) for member in model.members.values()]
    means, deviations = np.array([m for m, _ in each]), np.array([d for _, d in each])
    mean, deviation = model.predict(new)
    np.testing.assert_allclose(mean, means.mean(axis=0))
    np.testing.assert_allclose(deviation**2, (deviations**2).mean(axis=0) + means.var(axis=0))
    np.testing.assert_allclose(np.diagonal(model.covariance(new, new)) + model.noise, deviation**2, rtol=1e-6)
    assert (means.std(axis=0) > 0).all()


def test_resamples_follow_the_seed():
    rows, y = data(12, 0)
    first, again, other = (
        fit_bootstrapped(rows, y, COLUMNS, seed, resamples=3).predict(rows)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.slow
def test_intervals_cover_closer_to_ninety_percent_than_the_plain_process():
    plain, resampled = [], []
    for seed in range(20):
        rows, y = data(12, seed)
        new, truth = data(200, 1000 + seed)
        model = fit_bootstrapped(rows, y, COLUMNS, seed, resamples=20)
        for fitted, found in ((model.first, plain), (model, resampled)):
            mean, deviation = fitted.predict(new)
            found.append(np.mean(np.abs(truth - mean) < 1.645 * deviation))
    assert abs(np.mean(resampled) - 0.9) < abs(np.mean(plain) - 0.9)


def test_pseudo_data_have_the_noise_of_source_and_shift():
    values, variance = pseudo_data(np.zeros(3), np.diag([1.0, 4.0, 0.0]), np.array([3.0, -3.0]), seed=0)
    np.testing.assert_allclose(variance, [10.0, 13.0, 9.0])
    assert values[2] == 0.0
    assert (values[:2] != 0).all()
    with pytest.raises(ValueError, match="at least one residual"):
        pseudo_data(np.zeros(1), np.eye(1), np.zeros(0), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 1}, "resamples must be at least 2, got 1"),
        ({"resampling": "jackknife"}, "resampling must be one of residual, parametric, got 'jackknife'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_bootstrapped(*data(5, 0), COLUMNS, **options)
