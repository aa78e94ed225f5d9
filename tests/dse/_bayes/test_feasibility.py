import numpy as np

from dse._bayes.feasibility import FeasibilityModel
from dse._bayes.models import Columns

COLUMNS = Columns((0, 1))


def labelled(n, seed=0):
    rows = np.random.default_rng(seed).random((n, 2))
    return rows, rows[:, 0] < 0.4  # the other column does not matter


def test_the_boundary_is_learnt():
    model = FeasibilityModel(*labelled(40), COLUMNS)
    rows, feasible = labelled(300, seed=1)
    chance = np.exp(model.log_probability(rows))
    assert ((chance >= 0) & (chance <= 1)).all()
    assert ((chance > 0.5) == feasible).mean() > 0.9
    clear = np.abs(rows[:, 0] - 0.4) > 0.2
    assert ((chance[clear] > 0.9) == feasible[clear]).mean() > 0.9


def test_no_design_is_certain_to_fail():
    model = FeasibilityModel(*labelled(40), COLUMNS)
    assert np.isfinite(model.log_probability(np.random.default_rng(2).random((500, 2)))).all()


def test_with_failures_only_the_promise_is_far_from_them():
    rng = np.random.default_rng(3)
    failures = 0.3 * rng.random((12, 2))
    model = FeasibilityModel(failures, np.zeros(12, dtype=bool), COLUMNS)
    assert not model.trained
    rows = rng.random((400, 2))
    promise = model.log_promise(rows)
    best = rows[promise.argmax()]
    distance = np.linalg.norm(failures[:, None] - rows, axis=2).min(axis=0)
    assert np.linalg.norm(failures - best, axis=1).min() > np.quantile(distance, 0.9)


def test_with_failures_only_a_look_at_each_place_covers_the_space():
    """Asking where the promise is largest, and failing, goes to all four corners."""
    rng = np.random.default_rng(4)
    rows, pool = np.full((1, 2), 0.5), rng.random((300, 2))
    for _ in range(8):
        model = FeasibilityModel(rows, np.zeros(len(rows), dtype=bool), COLUMNS)
        rows = np.concatenate([rows, pool[[model.log_promise(pool).argmax()]]])
    assert len({(x > 0.5, y > 0.5) for x, y in rows[1:]}) == 4


def test_categories_are_learnt_too():
    rng = np.random.default_rng(5)
    rows = np.column_stack([rng.random(40), rng.integers(0, 4, 40)]).astype(float)
    model = FeasibilityModel(rows, rows[:, 1] != 2, Columns((0,), (1,)))
    probe = np.column_stack([np.full(4, 0.5), np.arange(4)])
    chance = np.exp(model.log_probability(probe))
    assert chance[2] < 0.2
    assert chance[[0, 1, 3]].min() > 0.8
