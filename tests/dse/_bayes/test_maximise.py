import numpy as np
import pytest

from dse._bayes.maximise import maximise


def hill(designs):
    """One maximum, at (37, 11), of a smooth function of two integers."""
    points = np.array(designs, dtype=float)
    return -((points[:, 0] - 37) ** 2) - (points[:, 1] - 11) ** 2


def steps(design):
    x, y = design
    moves = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
    return [(a, b) for a, b in moves if 0 <= a < 50 and 0 <= b < 50]


def test_without_moves_it_is_the_best_of_the_pool():
    pool = [(0, 0), (30, 11), (49, 49)]
    assert maximise(hill, pool, rng=np.random.default_rng(0)) == ((30, 11), -49.0)


def test_climbs_reach_a_maximum_outside_the_pool():
    assert maximise(hill, [(0, 0), (49, 49)], moves=steps, rng=np.random.default_rng(0)) == ((37, 11), 0.0)


def test_moves_that_are_not_offered_are_not_taken():
    def fenced(design):
        return [move for move in steps(design) if move[0] <= 20]

    best, _ = maximise(hill, [(0, 0)], moves=fenced, rng=np.random.default_rng(0))
    assert best == (20, 11)


def test_a_dead_end_and_minus_infinity_end_a_climb():
    def nowhere(designs):
        return np.full(len(designs), -np.inf)

    best, value = maximise(nowhere, [(1, 1), (2, 2)], moves=lambda _: [], rng=np.random.default_rng(0))
    assert best in ((1, 1), (2, 2))
    assert value == -np.inf


def test_equal_scores_are_told_apart_by_chance_and_the_same_chance_every_time():
    def flat(designs):
        return np.zeros(len(designs))

    pool = list(range(10))
    found = [maximise(flat, pool, rng=np.random.default_rng(seed))[0] for seed in range(40)]
    assert len(set(found)) > 5
    assert found == [maximise(flat, pool, rng=np.random.default_rng(seed))[0] for seed in range(40)]


def test_no_design_is_scored_twice():
    seen = []

    def counted(designs):
        seen.extend(designs)
        return hill(designs)

    maximise(counted, [(0, 0), (5, 5), (10, 10)], moves=steps, rng=np.random.default_rng(0))
    assert len(seen) == len(set(seen))


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="at least one design, got none"):
        maximise(hill, [], rng=np.random.default_rng(0))
