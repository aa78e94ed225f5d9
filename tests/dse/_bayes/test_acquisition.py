import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats.qmc import Sobol

from dse import hypervolume
from dse._bayes.acquisition import (
    boxes,
    log_expected_chebyshev_improvement,
    log_expected_hypervolume_improvement,
    log_h,
)


def test_the_log_of_the_expected_excess_is_exact_near_zero_and_keeps_its_order_far_away():
    z = np.array([-5.0, -1.5, -1.0, 0.0, 2.0, 30.0])
    np.testing.assert_allclose(np.exp(log_h(z)), norm.pdf(z) + z * norm.cdf(z), rtol=1e-9)
    far = -np.logspace(0, 8, 400)
    values = log_h(far)
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()
    # phi(z) / z^2 to first order.
    np.testing.assert_allclose(values[-1], -0.5 * far[-1] ** 2 - 2 * np.log(-far[-1]), rtol=1e-12)


@given(st.integers(1, 4), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_boxes_hold_what_no_point_dominates_once(m, n, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (n, m)) / 5.0  # ties, and points on and beyond the reference
    reference = np.full(m, 0.9)
    low, high = boxes(points, reference)
    assert (low < high).all()
    targets = rng.uniform(-0.5, 1.0, (200, m))
    inside = ((targets[:, None] > low) & (targets[:, None] < high)).all(axis=2).sum(axis=1)
    dominated = (points[None] <= targets[:, None]).all(axis=2).any(axis=1)
    wanted = ~dominated & (targets < reference).all(axis=1)
    assert (inside == wanted).all()


@pytest.mark.parametrize("m", [1, 2, 3])
def test_without_variance_it_is_the_improvement_of_the_hypervolume(m):
    rng = np.random.default_rng(m)
    points, fresh = rng.random((8, m)), rng.random((40, m))
    reference = np.full(m, 1.1)
    found = np.exp(
        log_expected_hypervolume_improvement(fresh, np.full(fresh.shape, 1e-9), *boxes(points, reference))
    )
    before = hypervolume(points, reference)
    gain = np.array([hypervolume([*points, row], reference) - before for row in fresh])
    assert gain.max() > 0.01
    np.testing.assert_allclose(found, gain, atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_with_variance_it_is_the_integral_of_the_chance_to_dominate_what_is_not_dominated(m):
    rng = np.random.default_rng(10 + m)
    points, mean, deviation = rng.random((6, m)), rng.random((5, m)), rng.uniform(0.1, 0.4, (5, m))
    reference, corner = 1.2, -2.0  # six deviations below the lowest mean
    found = np.exp(
        log_expected_hypervolume_improvement(mean, deviation, *boxes(points, np.full(m, reference)))
    )
    targets = corner + (reference - corner) * Sobol(m, rng=rng).random(2**16)
    free = targets[~(points[:, None] <= targets).all(axis=2).any(axis=0)]
    chance = norm.cdf((free - mean[:, None]) / deviation[:, None]).prod(axis=2)
    wanted = chance.sum(axis=1) / len(targets) * (reference - corner) ** m
    np.testing.assert_allclose(found, wanted, rtol=0.01, atol=2e-4)


def test_hopeless_candidates_still_have_an_order():
    points = np.array([[0.0, 1.0], [1.0, 0.0]])
    mean = np.column_stack([np.linspace(5, 500, 50)] * 2)
    values = log_expected_hypervolume_improvement(
        mean, np.full(mean.shape, 0.1), *boxes(points, np.array([1.5, 1.5]))
    )
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()


def test_a_candidate_better_than_everything_has_all_of_the_volume():
    points, reference = np.array([[0.5, 0.5]]), np.array([1.0, 1.0])
    value = log_expected_hypervolume_improvement(
        np.array([[-9.0, -9.0]]), np.array([[0.01, 0.01]]), *boxes(points, reference)
    )
    assert np.exp(value[0]) == pytest.approx(10.0 * 10.0 - 0.25, rel=1e-6)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_improvement_of_a_maximum_is_the_mean_of_draws(m):
    rng = np.random.default_rng(20 + m)
    mean, deviation = rng.standard_normal((6, m)), rng.uniform(0.2, 1.0, (6, m))
    found = np.exp(log_expected_chebyshev_improvement(mean, deviation, 0.7))
    draws = (mean + deviation * rng.standard_normal((50_000, 6, m))).max(axis=2)
    gain = np.maximum(0.7 - draws, 0.0)
    np.testing.assert_allclose(found, gain.mean(axis=0), rtol=0.03, atol=5e-4)


def test_the_improvement_of_one_variable_is_expected_improvement():
    mean, deviation = np.array([[-1.0], [0.0], [3.0], [40.0]]), np.array([[0.5], [1.0], [1.0], [1.0]])
    z = (0.2 - mean[:, 0]) / deviation[:, 0]
    np.testing.assert_allclose(
        log_expected_chebyshev_improvement(mean, deviation, 0.2),
        log_h(z) + np.log(deviation[:, 0]),
        rtol=1e-3,
    )


def test_a_known_variable_cuts_the_integral():
    # max(Y, 0.5) with 0.5 exact: of Y far below, best - 0.5 is gained.
    value = log_expected_chebyshev_improvement(np.array([[-9.0, 0.5]]), np.array([[0.1, 1e-6]]), 1.0)
    assert np.exp(value[0]) == pytest.approx(0.5, rel=0.02)
