import numpy as np
import pytest

from dse._bayes.columns import Columns
from dse._bayes.ranking import RankingEnsemble, misranked, ranking_weights
from dse._bayes.surrogates import fit_gp

ONE = Columns((0,))


def test_misranked_pairs_by_hand():
    y = np.array([1.0, 2.0, 3.0])
    draws = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 1.0, 3.0]])
    # Ordered pairs: a whole reversal gets all six wrong, one swap two.
    np.testing.assert_array_equal(misranked(draws, y), [0, 6, 2])


def test_comparing_with_measurements_flatters_a_model_that_knows_nothing():
    """An uninformed model mis-orders half of the pairs, but a quarter against the measurements."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(30)
    draws = 1e-3 * rng.standard_normal((200, 30))
    pairs = 30 * 29
    right = misranked(draws, y).mean() / pairs
    flattered = misranked(draws, y, np.broadcast_to(y, draws.shape)).mean() / pairs
    assert right == pytest.approx(0.5, abs=0.03)
    assert flattered == pytest.approx(0.25, abs=0.05)


def test_the_least_loss_takes_each_draw_and_ties_are_split():
    losses = np.array([[1.0, 5.0, 2.0, 3.0], [2.0, 2.0, 2.0, 3.0]])
    np.testing.assert_allclose(ranking_weights(losses), [0.5, 0.5])


def test_a_source_that_is_worse_than_most_of_the_target_s_draws_gets_nothing():
    target = np.arange(100.0)
    lucky = np.full(100, 96.0)
    lucky[:20] = -1.0  # wins some draws, but its median is beyond the 95th percentile
    np.testing.assert_allclose(ranking_weights(np.array([lucky, target])), [0.0, 1.0])


def problem(sign: float):
    rng = np.random.default_rng(1)
    source_rows = rng.random((40, 1))
    source = fit_gp(source_rows, sign * np.sin(6 * source_rows[:, 0]), ONE, scale=(0.0, 1.0))
    rows = rng.random((8, 1))
    y = 100 + 20 * np.sin(6 * rows[:, 0])
    return source, rows, y, fit_gp(rows, y, ONE)


def test_a_source_in_the_right_order_takes_part_whatever_its_scale():
    source, rows, y, target = problem(1.0)
    ensemble = RankingEnsemble(target, [source], rows, y, seed=0)
    assert ensemble.weights[0] > 0.5
    assert ensemble.weights.sum() == pytest.approx(1.0)


def test_a_source_in_reverse_order_is_left_out():
    source, rows, y, target = problem(-1.0)
    ensemble = RankingEnsemble(target, [source], rows, y, seed=0)
    np.testing.assert_allclose(ensemble.weights, [0.0, 1.0])
    new = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(ensemble.predict(new)[0], target.predict(new)[0])


def test_means_add_with_the_weights_and_covariances_with_their_squares():
    source, rows, y, target = problem(1.0)
    ensemble = RankingEnsemble(target, [source], rows, y, seed=0)
    new = np.linspace(0, 1, 4)[:, None]
    w, own = ensemble.weights
    spread = y.std()
    mean = w * (source.predict(new)[0] * spread + y.mean()) + own * target.predict(new)[0]
    covariance = (w * spread) ** 2 * source.covariance(new, new) + own**2 * target.covariance(new, new)
    np.testing.assert_allclose(ensemble.predict(new)[0], mean)
    np.testing.assert_allclose(ensemble.covariance(new, new), covariance)
