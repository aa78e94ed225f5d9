"""PEPPP from a table to a frontier."""

import numpy as np
import pytest

from studies.accuracy.peppp import Peppp, frontier
from studies.accuracy.peppp.design import information
from studies.accuracy.peppp.validation import UNMODELLED, leave_one_out, sample_entries


def tables(rows=12, columns=20, rank=2, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    errors = random.random((rows, rank)) @ random.random((rank, columns))
    errors = errors + noise * random.standard_normal(errors.shape)
    return errors, random.uniform(1.0, 4.0, columns)


def fitted(**options):
    errors, memory = tables()
    return (
        errors,
        memory,
        Peppp(errors[1:], memory, **{"lam": 1e-6, "rank": 2, "ridge": 1e-10, **options}).fit(),
    )


@pytest.mark.parametrize("method", ["relaxed", "greedy", "pivots"])
def test_errors_of_a_low_rank_table_follow_from_two_measurements(method):
    errors, memory, peppp = fitted()
    chosen = peppp.choose(2 * memory.max(), method=method)
    assert len(chosen.indices) >= 2
    measured = {int(j): errors[0, j] for j in chosen.indices}
    np.testing.assert_allclose(peppp.predict(measured), errors[0], atol=1e-4)
    estimate, truth = peppp.pareto(measured), frontier(memory, errors[0])
    assert estimate.indices.tolist() == truth.indices.tolist()
    np.testing.assert_allclose(estimate.errors, truth.errors, atol=1e-4)


def test_a_selection_tells_its_cost_information_and_bound():
    _, memory, peppp = fitted()
    chosen = peppp.choose(10.0)
    assert chosen.cost == pytest.approx(memory[chosen.indices].sum())
    assert chosen.cost <= 10.0
    weights = np.isin(np.arange(20), chosen.indices).astype(float)
    assert chosen.log_det == pytest.approx(information(peppp.embeddings, weights, peppp.ridge))
    assert chosen.log_det <= chosen.bound
    random = peppp.choose(10.0, method="random", seed=3)
    assert random.bound is None
    assert random.log_det < chosen.log_det
    assert random.indices.tolist() == peppp.choose(10.0, method="random", seed=3).indices.tolist()


def test_measured_errors_stand_on_the_frontier_as_they_are():
    _, _, peppp = fitted(ridge=1.0)  # so that predictions differ from what is measured
    cheapest = int(np.argmin(peppp.memory))
    found = peppp.pareto({cheapest: 0.123})
    assert found.indices[0] == cheapest
    assert found.errors[0] == 0.123


def test_penalty_and_rank_come_from_held_out_entries_and_the_ridge_from_the_noise():
    errors, memory = tables(rows=60, columns=40, noise=0.02)
    table = np.where(sample_entries(errors.shape, 0.6, seed=1), errors, np.nan)
    peppp = Peppp(table, memory).fit()
    assert peppp.rank == 2
    assert (peppp.completion.lam, peppp.rank) == peppp.scores.best
    assert 0.5 * 0.02**2 < peppp.ridge < 2 * 0.02**2
    assert peppp.spectrum[:2].sum() > 0.99
    again = Peppp(table, memory).fit()
    np.testing.assert_array_equal(again.embeddings, peppp.embeddings)


def test_without_measurements_the_prediction_is_zero():
    assert not fitted()[2].predict({}).any()


def test_a_centred_table_starts_from_the_means():
    errors, memory = tables(rows=9)
    shifted = errors + np.linspace(0, 5, 20)  # a column's own level is no rank of its own
    options = {"lam": 1e-7, "rank": 2, "ridge": 1e-12, "centred": True}
    peppp = Peppp(shifted[1:], memory, **options).fit()
    np.testing.assert_allclose(peppp.predict({}), shifted[1:].mean(axis=0))
    measured = {j: shifted[0, j] for j in (0, 7, 13)}
    np.testing.assert_allclose(peppp.predict(measured), shifted[0], atol=1e-4)
    plain = Peppp(shifted[1:], memory, **{**options, "centred": False}).fit()
    assert np.abs(plain.predict(measured) - shifted[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("errors", "memory", "options", "message"),
    [
        (np.zeros((0, 0)), [], {}, r"must be a table .* got the shape \(0, 0\)"),
        ([[1.0, 1.0], [np.nan, np.nan]], [1, 1], {}, "must have an observation, got none in row 1"),
        ([[1.0, np.nan], [1.0, np.nan]], [1, 1], {}, "must have an observation, got none in column 1"),
        ([[1.0, 1.0]], [1.0, np.nan], {}, "positive and finite, got nan of configuration 1"),
        ([[1.0, 1.0]], [1.0], {}, r"must have the shape \(2,\)"),
        ([[1.0, 1.0]], [1, 1], {"rank": 2}, "rank must be in 1..1, got 2"),
        ([[1.0, 1.0]], [1, 1], {"lam": -1.0}, "lam must be positive and finite, got -1.0"),
        ([[1.0, 1.0]], [1, 1], {"ridge": np.inf}, "ridge must be positive and finite, got inf"),
    ],
)
def test_bad_tables_are_refused_in_one_line(errors, memory, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Peppp(errors, memory, **options)
    assert "\n" not in str(caught.value)


def test_bad_requests_are_refused_in_one_line():
    _, memory, peppp = fitted()
    with pytest.raises(ValueError, match=f"at least {memory.min():g}, the cost of the cheapest .* got 0.5"):
        peppp.choose(0.5)
    with pytest.raises(ValueError, match="method must be one of relaxed, greedy, pivots, random; got 'best'"):
        peppp.choose(5.0, method="best")
    with pytest.raises(ValueError, match=r"must be in 0..19, got 20"):
        peppp.predict({20: 0.1})
    with pytest.raises(ValueError, match="must be finite, got nan of configuration 3"):
        peppp.pareto({3: np.nan})
    with pytest.raises(RuntimeError, match="fit"):
        Peppp([[1.0]], [1.0]).choose(1.0)


def test_sampled_entries_leave_no_row_and_no_column_empty():
    for seed in range(20):
        taken = sample_entries((8, 30), 0.1, seed=seed)
        assert taken.any(axis=0).all()
        assert taken.any(axis=1).all()
        assert 24 <= taken.sum() < 24 + 30
    assert sample_entries((3, 4), 1.0, seed=0).all()
    with pytest.raises(ValueError, match=r"share must be in 0..1, and not 0, got 0.0"):
        sample_entries((3, 4), 0.0, seed=0)


def test_leaving_one_out_finds_every_frontier_of_an_exact_table():
    errors, memory = tables(rows=6)
    sizes = np.tile(memory, (6, 1))
    results = leave_one_out(
        errors, sizes, budgets=[0.1, 1.0], seeds=[0, 1], lam=1e-6, rank=2, ridge=1e-10
    ).set_index("method")
    assert len(results) == 6 * 2 * 2 * 5
    designed = results.loc[["relaxed", "greedy", "pivots"]]
    assert designed["hypervolume_difference"].max() < 1e-3
    assert designed["relative_error"].max() < 1e-3
    assert (designed["measured"] >= 2).all()
    # With everything measured, every frontier is the true one, by whatever choice and without a model.
    whole = results[results["budget"] == 1.0]
    assert whole["convergence"].max() == 0.0
    assert whole["hypervolume_difference"].abs().max() < 1e-12
    few = results.loc[UNMODELLED].query("budget < 1")
    assert few["hypervolume_difference"].mean() > 0.05


def test_what_is_left_out_does_not_enter_its_own_prediction():
    errors, memory = tables(rows=6, noise=0.05)
    sizes = np.tile(memory, (6, 1))
    changed = errors.copy()
    changed[5] = 1.0 - changed[5]
    options = {"budgets": [0.2], "share": 0.8, "lam": 0.05, "rank": 2}
    before, after = (
        leave_one_out(table, sizes, **options).query("data_set == 5") for table in (errors, changed)
    )
    for column in ("rank", "ridge", "log_det", "completion_error"):
        np.testing.assert_array_equal(before[column], after[column])


def test_leaving_one_out_refuses_what_it_cannot_compare_with():
    with pytest.raises(ValueError, match="got NaN in row 0, column 1"):
        leave_one_out([[1.0, np.nan], [1.0, 1.0]], np.ones((2, 2)), budgets=[0.5])
    with pytest.raises(ValueError, match="at least 2 rows to leave one out, got 1"):
        leave_one_out([[1.0, 1.0]], np.ones((1, 2)), budgets=[0.5])
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2\) and \(2, 2\)"):
        leave_one_out([[1.0, 1.0]], np.ones((2, 2)), budgets=[0.5])
