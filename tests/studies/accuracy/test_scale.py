import numpy as np
import pytest

from studies.accuracy.scale import kept_of, kept_share, modelled, modelled_slope, moments, twin_accuracy
from studies.accuracy.statistics import known

TASK = known()["digits-mlp"]


def test_the_twin_keeps_all_and_guessing_nothing():
    fidelity = np.array([share for share, _ in TASK.twin_curve])
    twin = np.array([accuracy for _, accuracy in TASK.twin_curve])
    assert kept_share(TASK, twin, fidelity).tolist() == [1.0] * len(twin)
    assert kept_share(TASK, np.array([TASK.guess_accuracy]), np.ones(1)).tolist() == [0.0]


def test_a_run_that_diverged_keeps_nothing():
    assert kept_share(TASK, np.array([np.nan]), np.ones(1)).tolist() == [0.0]


def test_between_fidelities_the_twin_is_interpolated():
    (low, first), (high, second) = TASK.twin_curve[:2]
    between = twin_accuracy(TASK, np.array([np.sqrt(low * high)]))[0]
    assert between == pytest.approx(0.5 * (first + second))


def test_the_model_scale_is_inverted():
    kept = np.linspace(0.0, 1.0, 11)
    assert kept_of(modelled(kept)) == pytest.approx(kept, abs=1e-12)
    assert (np.diff(modelled(kept)) > 0).all()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.5, 0.3), (-3.0, 2.0), (3.5, 0.01)])
def test_moments_are_those_of_a_sample(mean, deviation):
    sample = kept_of(mean + deviation * np.random.default_rng(0).normal(size=400_000))
    found = moments(np.array([mean]), np.array([deviation]))
    assert found[0][0] == pytest.approx(sample.mean(), abs=0.004)
    assert found[1][0] == pytest.approx(sample.std(), abs=0.006)


def test_the_slope_of_the_scale_is_that_of_differences():
    kept = np.linspace(0.0, 1.0, 9)
    change = (modelled(kept + 1e-6) - modelled(kept - 1e-6)) / 2e-6
    assert modelled_slope(kept) == pytest.approx(change, rel=1e-6)
