import numpy as np
import pytest

from studies.accuracy.stacking import Opinions, stacking_weights, widening

RNG = np.random.default_rng(0)


def test_one_expert_is_left_as_it_is():
    one = Opinions(np.array([[0.3, -1.0]]), np.array([[0.2, 0.5]]))
    mean, deviation = one.pooled(np.ones(1))
    assert mean == pytest.approx([0.3, -1.0])
    assert deviation == pytest.approx([0.2, 0.5])
    assert stacking_weights([one]).tolist() == [1.0]


def test_experts_who_know_as_much_are_averaged_by_precision():
    both = Opinions(np.array([[0.0], [3.0]]), np.array([[1.0], [1.0]]))
    mean, deviation = both.pooled(np.array([0.25, 0.75]))
    assert mean == pytest.approx([2.25])
    assert deviation == pytest.approx([1.0])
    # By hand: precisions 4 and 1, half of each.
    sharp = Opinions(np.array([[0.0], [3.0]]), np.array([[0.5], [1.0]]))
    mean, deviation = sharp.pooled(np.array([0.5, 0.5]))
    assert mean == pytest.approx([0.6])
    assert deviation == pytest.approx([2.5**-0.5])


def test_weights_go_to_who_was_right():
    errors = np.stack([0.1 * RNG.normal(size=200), RNG.normal(size=200)])
    left_out = Opinions(errors, np.full((2, 200), 0.5))
    weights = stacking_weights([left_out])
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.9
    turned = Opinions(errors[::-1], left_out.deviations)
    assert stacking_weights([turned])[1] == pytest.approx(weights[0], abs=1e-3)


def test_widened_intervals_hold_the_share_that_they_should():
    scores = 1.7 * RNG.normal(size=4000)
    factor = widening(scores, [], level=0.9, enough=30)
    assert factor == pytest.approx(1.7, rel=0.05)
    assert np.mean(np.abs(scores) <= 1.6449 * factor) == pytest.approx(0.9, abs=0.002)


def test_few_runs_of_a_task_count_little_beside_the_others():
    others = 2.0 * RNG.normal(size=4000)
    own = np.full(5, 0.1)
    alone, all_of_them = (widening(scores, [others], level=0.9, enough=90) for scores in (np.empty(0), own))
    assert all_of_them == pytest.approx(alone, rel=0.05)
    assert widening(np.full(4000, 0.1), [others], level=0.9, enough=90) == 1.0


def test_nothing_known_widens_nothing():
    assert widening(np.empty(0), [np.empty(0)], level=0.9, enough=30) == 1.0


def test_the_hardest_other_task_counts():
    easy, hard = RNG.normal(size=4000), 2.5 * RNG.normal(size=4000)
    assert widening(np.empty(0), [easy, hard], level=0.9, enough=90) == pytest.approx(2.5, rel=0.05)
