import numpy as np
import pytest

from dse._bayes.columns import Columns
from dse._bayes.surrogates import fit_gp
from dse._bayes.transfer import Task, fit_sources, fit_transfer, spearman

COLUMNS = Columns((0, 1, 2))
SINGLE = {"matern32": fit_gp}


def function(rows: np.ndarray) -> np.ndarray:
    return np.sin(5 * rows[:, 0]) + 2 * (rows[:, 1] - 0.3) ** 2 + rows[:, 0] * rows[:, 2]


def problem(kind: str, seed: int = 0, n: int = 10):
    """Task of 60 rows, n target rows, and 200 held out."""
    rng = np.random.default_rng(seed)
    source_rows, rows, new = rng.random((60, 3)), rng.random((n, 3)), rng.random((200, 3))
    source_y = function(source_rows)
    if kind == "shuffled":
        source_y = rng.permutation(source_y)
    if kind == "reversed":
        source_y = -source_y
    y = 40 + 7 * (function(rows) + 0.1 * np.cos(9 * rows[:, 2]))
    truth = 40 + 7 * (function(new) + 0.1 * np.cos(9 * new[:, 2]))
    return Task(kind, source_rows, 3 * source_y - 8), rows, y, new, truth


def error(model, new, truth) -> float:
    return float(np.sqrt(np.mean((model.predict(new)[0] - truth) ** 2)))


@pytest.mark.parametrize("way", ["mean", "icm", "rgpe", "auto"])
def test_a_related_source_helps(way):
    task, rows, y, new, truth = problem("related", n=6)
    sources = fit_sources([task], COLUMNS, 0)
    helped = fit_transfer(rows, y, COLUMNS, sources, way=way)
    alone = fit_transfer(rows, y, COLUMNS, sources, way="none")
    assert error(helped, new, truth) < 0.8 * error(alone, new, truth)


def test_rho_is_learnt_and_reported():
    task, rows, y, _, _ = problem("related", n=20)
    facts = fit_transfer(rows, y, COLUMNS, fit_sources([task], COLUMNS, 0), way="mean").report.sources
    assert facts["related"]["rho"] == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(("kind", "sign"), [("related", 1), ("reversed", -1)])
def test_a_source_that_runs_against_the_target_has_a_negative_correlation_and_helps(kind, sign):
    task, rows, y, new, truth = problem(kind, n=12)
    sources = fit_sources([task], COLUMNS, 0)
    model = fit_transfer(rows, y, COLUMNS, sources, way="icm")
    assert sign * model.report.sources[kind]["correlation"] > 0.5
    assert error(model, new, truth) < 0.8 * error(
        fit_transfer(rows, y, COLUMNS, sources, way="none"), new, truth
    )


@pytest.mark.parametrize("kind", ["shuffled", "reversed"])
def test_an_unrelated_source_does_little_harm(kind):
    ratios = []
    for seed in range(4):
        task, rows, y, new, truth = problem(kind, seed)
        sources = fit_sources([task], COLUMNS, seed)
        alone = fit_transfer(rows, y, COLUMNS, sources, seed, way="none", surrogates=SINGLE)
        auto = fit_transfer(rows, y, COLUMNS, sources, seed, surrogates=SINGLE)
        ratios.append(error(auto, new, truth) / error(alone, new, truth))
    assert np.median(ratios) <= 1.1


def test_where_nothing_follows_the_choice_falls_back_to_none_and_says_so():
    rng = np.random.default_rng(0)
    rows = rng.random((12, 3))
    task = Task("other", rng.random((40, 3)), rng.standard_normal(40))
    source = fit_sources([task], COLUMNS, 0)
    y = rows[:, 0]
    y = y - y.mean()
    # Targets that are uncorrelated with the source's prediction in rank.
    order = np.argsort(source[0].predict(rows)[0])
    y[order] = [0, 3, 1, 2, 3, 0, 2, 1, 0, 3, 1, 2]
    fitted = fit_transfer(rows, y, COLUMNS, source)
    assert fitted.report.way == "none"
    assert abs(fitted.report.sources["other"]["spearman"]) < 0.2
    np.testing.assert_array_equal(
        fitted.predict(rows)[0], fit_transfer(rows, y, COLUMNS, source, way="none").predict(rows)[0]
    )


def test_the_report_has_a_line_for_the_choice_and_one_per_source():
    task, rows, y, _, _ = problem("related")
    lines = fit_transfer(rows, y, COLUMNS, fit_sources([task], COLUMNS, 0)).report.lines()
    assert lines[0].startswith("transfer: auto, weight 0.")
    assert lines[1].startswith("source related: spearman ")
    assert all(word in lines[1] for word in ("rho", "correlation", "weight"))


def test_a_source_without_a_column_is_used_for_the_others():
    task, rows, y, new, truth = problem("related", n=6)
    task.rows[:, 2] = np.nan
    (source,) = sources = fit_sources([task], COLUMNS, 0)
    moved = new.copy()
    moved[:, 2] = 0.0
    np.testing.assert_array_equal(source.predict(new)[0], source.predict(moved)[0])
    alone = fit_transfer(rows, y, COLUMNS, sources, way="none")
    assert error(fit_transfer(rows, y, COLUMNS, sources), new, truth) < error(alone, new, truth)


def test_several_sources_are_told_apart():
    good, rows, y, _, _ = problem("related", n=20)
    bad = problem("shuffled", 5)[0]
    report = fit_transfer(rows, y, COLUMNS, fit_sources([good, bad], COLUMNS, 0), way="rgpe").report
    assert report.sources["related"]["weight"] > report.sources["shuffled"]["weight"]


def test_equal_calls_give_equal_predictions():
    task, rows, y, new, _ = problem("related")
    sources = fit_sources([task], COLUMNS, 3)
    first, second = (fit_transfer(rows, y, COLUMNS, sources, 3).predict(new) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_bad_sources_are_refused():
    rows = np.full((6, 3), np.nan)
    with pytest.raises(ValueError, match="source empty has no parameter in common"):
        fit_sources([Task("empty", rows, np.arange(6.0))], COLUMNS, 0)
    partial = np.random.default_rng(0).random((6, 3))
    partial[2, 1] = np.nan
    with pytest.raises(ValueError, match="source part has column 1 for some of its rows only"):
        fit_sources([Task("part", partial, np.arange(6.0))], COLUMNS, 0)
    with pytest.raises(ValueError, match="source flat has the same value 2 for all its rows"):
        fit_sources([Task("flat", np.random.default_rng(0).random((6, 3)), np.full(6, 2.0))], COLUMNS, 0)


def test_bad_ways_are_refused():
    _, rows, y, _, _ = problem("related")
    with pytest.raises(ValueError, match="way must be one of none, mean, icm, rgpe, auto, got 'best'"):
        fit_transfer(rows, y, COLUMNS, (), way="best")
    with pytest.raises(ValueError, match="transfer by icm needs a source"):
        fit_transfer(rows, y, COLUMNS, (), way="icm")


def test_rank_correlation_by_hand():
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 15])) == pytest.approx(0.5)
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0


def test_standardised_source_predictions_follow_the_source():
    task = problem("related")[0]
    (source,) = fit_sources([task], COLUMNS, 0)
    z = (task.y - task.y.mean()) / task.y.std()
    assert np.corrcoef(source.predict(task.rows)[0], z)[0, 1] > 0.99
    own = fit_gp(task.rows, z, COLUMNS, family="matern52", scale=(0.0, 1.0))
    np.testing.assert_allclose(source.predict(task.rows)[0], own.predict(task.rows)[0])
