import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse._bayes import active
from dse._bayes.active import choose
from dse._bayes.columns import Columns
from dse._bayes.committee import fit_committee
from dse._bayes.surrogates import fit_gp

TWO = Columns((0, 1))


def model(n: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    rows = rng.random((n, 2))
    return fit_gp(rows, np.sin(5 * rows[:, 0]) + rows[:, 1], TWO)


def mean_variance_after(fitted, measured: np.ndarray, points: np.ndarray) -> float:
    """Mean posterior variance of points once rows are measured, by the textbook formula."""
    cross = fitted.covariance(points, measured)
    inner = fitted.covariance(measured, measured) + fitted.noise * np.eye(len(measured))
    return float(
        np.mean(np.diagonal(fitted.covariance(points, points) - cross @ np.linalg.solve(inner, cross.T)))
    )


def test_integrated_variance_picks_what_leaves_the_least_by_brute_force():
    fitted, candidates = model(), np.random.default_rng(1).random((40, 2))
    left = [mean_variance_after(fitted, candidates[[i]], candidates) for i in range(40)]
    assert choose([fitted], candidates, 1)[0] == int(np.argmin(left))


def test_each_pick_of_a_batch_is_the_best_after_those_before_it():
    fitted, candidates = model(), np.random.default_rng(2).random((30, 2))
    picks = choose([fitted], candidates, 4).tolist()
    for place in range(1, 4):
        left = {
            i: mean_variance_after(fitted, candidates[[*picks[:place], i]], candidates)
            for i in range(30)
            if i not in picks[:place]
        }
        assert left[picks[place]] == pytest.approx(min(left.values()), rel=1e-6)


def test_pending_rows_are_taken_as_measured():
    fitted, candidates = model(), np.random.default_rng(3).random((30, 2))
    first, second = choose([fitted], candidates, 2)
    rest = np.delete(np.arange(30), first)
    pick = choose([fitted], candidates[rest], 1, pending=candidates[[first]])[0]
    left = [mean_variance_after(fitted, candidates[[first, i]], candidates[rest]) for i in rest]
    assert pick == int(np.argmin(left))
    assert second in rest


def test_maximum_variance_picks_the_largest():
    fitted, candidates = model(), np.random.default_rng(4).random((30, 2))
    assert choose([fitted], candidates, 1, score="maximum")[0] == np.argmax(fitted.predict(candidates)[1])


def test_disagreement_picks_where_members_differ_most():
    rng = np.random.default_rng(5)
    rows = rng.random((20, 2))
    committee = fit_committee(rows, np.sign(rows[:, 0] - 0.5) + rows[:, 1], TWO)
    candidates = rng.random((30, 2))
    assert choose([committee], candidates, 1, score="disagreement")[0] == np.argmax(
        committee.between(candidates)
    )
    with pytest.raises(TypeError, match="disagreement needs a committee, got SingleTarget"):
        choose([model()], candidates, 1, score="disagreement")


def test_the_scale_of_a_target_does_not_decide():
    rng = np.random.default_rng(6)
    rows = rng.random((12, 2))
    first = fit_gp(rows, np.sin(5 * rows[:, 0]), TWO)
    small = fit_gp(rows, np.cos(7 * rows[:, 1]), TWO)
    large = fit_gp(rows, 1e4 * np.cos(7 * rows[:, 1]), TWO)
    candidates = rng.random((40, 2))
    assert choose([first, small], candidates, 5).tolist() == choose([first, large], candidates, 5).tolist()


@given(st.integers(0, 1000), st.integers(1, 20), st.sampled_from(["integrated", "maximum"]))
@settings(max_examples=20, deadline=None)
def test_picks_are_distinct_candidates(seed, n, score):
    candidates = np.random.default_rng(seed).random((20, 2))
    picks = choose([FITTED], candidates, n, score=score, seed=seed)
    assert len(set(picks.tolist())) == n
    assert set(picks.tolist()) <= set(range(20))


FITTED = model()


def test_of_many_candidates_a_part_is_looked_at(monkeypatch):
    monkeypatch.setattr(active, "CANDIDATES", 10)
    candidates = np.random.default_rng(7).random((200, 2))
    picks = choose([FITTED], candidates, 2, seed=1)
    assert picks.tolist() == choose([FITTED], candidates, 2, seed=1).tolist()
    others = [choose([FITTED], candidates, 2, seed=seed).tolist() for seed in range(2, 8)]
    assert any(other != picks.tolist() for other in others)


def test_thousands_of_candidates_take_a_fraction_of_a_second():
    candidates = np.random.default_rng(8).random((5000, 2))
    begin = time.process_time()
    choose([FITTED], candidates, 1)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"n must be in 1..5, the number of candidates, got 0"),
        ({"n": 6}, "got 6"),
        (
            {"n": 1, "score": "entropy"},
            "score must be one of integrated, maximum, disagreement, got 'entropy'",
        ),
        ({"n": 1, "weights": [1.0, 2.0]}, "must be 1 weights, one per model, got 2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        choose([FITTED], np.random.default_rng(0).random((5, 2)), **options)
    with pytest.raises(ValueError, match="at least one model"):
        choose([], np.zeros((2, 2)), 1)
