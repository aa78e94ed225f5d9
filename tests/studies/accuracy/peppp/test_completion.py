"""Soft-Impute against the optimality conditions, an independent solver, and tables that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from studies.accuracy.peppp.completion import held_out, largest_penalty, optimality_violation, soft_impute


def gappy(rows, columns, rank, share, seed, noise=0.0):
    random = np.random.default_rng(seed)
    whole = random.random((rows, rank)) @ random.random((rank, columns))
    whole = whole + noise * random.standard_normal(whole.shape)
    return whole, np.where(random.random(whole.shape) < share, whole, np.nan)


def objective(table, values, lam):
    residual = (values - table)[~np.isnan(table)]
    return 0.5 * residual @ residual + lam * np.linalg.svd(values, compute_uv=False).sum()


@settings(max_examples=25)
@given(
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    seed=st.integers(0, 2**16),
    share=st.floats(0.4, 1.0),
    penalty=st.floats(0.02, 0.9),
)
def test_the_residual_is_lam_times_a_subgradient_of_the_nuclear_norm(rows, columns, seed, share, penalty):
    _, table = gappy(rows, columns, 2, share, seed, noise=0.1)
    table[0, 0] = 1.0
    lam = penalty * largest_penalty(table)
    values = soft_impute(table, lam).values
    residual = np.where(np.isnan(table), 0.0, table - values)
    # The subdifferential of the norm at X: spectral norm at most 1, and <G, X> = ||X||_* [Watson 1992].
    assert np.linalg.norm(residual, 2) <= lam * (1 + 1e-4)
    nuclear = np.linalg.svd(values, compute_uv=False).sum()
    assert np.vdot(residual, values) == pytest.approx(lam * nuclear, rel=1e-4, abs=1e-9)


def test_a_factored_problem_solved_by_another_method_has_the_same_minimum():
    # ||X||_* is the least (||A||^2 + ||B||^2) / 2 over X = A B' [Srebro 2005]: smooth, solved by L-BFGS.
    _, table = gappy(7, 9, 2, 0.7, seed=3, noise=0.05)
    lam, rank = 0.3, 7
    observed = ~np.isnan(table)

    def loss(flat):
        a, b = flat[: 7 * rank].reshape(7, rank), flat[7 * rank :].reshape(9, rank)
        r = np.where(observed, a @ b.T - np.nan_to_num(table), 0.0)
        slope = np.concatenate([(r @ b + lam * a).ravel(), (r.T @ a + lam * b).ravel()])
        return 0.5 * (r**2).sum() + 0.5 * lam * (flat @ flat), slope

    start = np.random.default_rng(0).standard_normal(16 * rank)
    options = {"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-9, "maxfun": 40_000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    ours = soft_impute(table, lam)
    a, b = found.x[: 7 * rank].reshape(7, rank), found.x[7 * rank :].reshape(9, rank)
    assert objective(table, ours.values, lam) == pytest.approx(found.fun, rel=1e-8)
    np.testing.assert_allclose(ours.values, a @ b.T, atol=1e-4)


def test_a_whole_table_is_shrunk_in_one_step():
    whole, _ = gappy(5, 4, 3, 1.0, seed=1)
    left, singular, right = np.linalg.svd(whole, full_matrices=False)
    found = soft_impute(whole, 0.2)
    assert found.iterations == 1
    np.testing.assert_allclose(found.values, (left * np.maximum(singular - 0.2, 0)) @ right, atol=1e-12)


def test_a_low_rank_table_is_recovered_from_half_of_its_entries():
    whole, table = gappy(40, 50, 2, 0.5, seed=0)
    found = soft_impute(table, 1e-3 * largest_penalty(table))
    assert np.linalg.norm(found.values - whole) < 5e-3 * np.linalg.norm(whole)


def test_from_the_largest_penalty_on_everything_is_zero():
    _, table = gappy(6, 5, 2, 0.6, seed=2)
    largest = largest_penalty(table)
    assert not soft_impute(table, 1.0001 * largest).values.any()
    assert soft_impute(table, 0.99 * largest).values.any()


def test_a_warm_start_saves_iterations_and_changes_nothing():
    _, table = gappy(20, 30, 3, 0.3, seed=4, noise=0.02)
    lam = 0.01 * largest_penalty(table)
    cold, near = soft_impute(table, lam, tolerance=1e-7), soft_impute(table, 1.1 * lam)
    warm = soft_impute(table, lam, start=near.values, tolerance=1e-7)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.values, cold.values, atol=1e-4)


def test_the_violation_tells_a_solution_from_what_is_none():
    _, table = gappy(8, 9, 2, 0.6, seed=5)
    found = soft_impute(table, 0.2)
    assert found.violation <= 1e-5
    assert optimality_violation(table, found.values + 0.01, 0.2) > 0.05
    assert optimality_violation(table, 0.9 * found.values, 0.2) > 0.05


def test_held_out_entries_find_the_rank_of_a_noisy_table():
    _, table = gappy(60, 50, 2, 0.7, seed=6, noise=0.01)
    scores = held_out(table, seed=0)
    assert scores.best[1] == 2
    assert np.sqrt(scores.scores.min()) < 0.02  # the noise is 0.01
    np.testing.assert_array_equal(held_out(table, seed=0).scores, scores.scores)


def test_a_given_penalty_or_rank_leaves_the_other_one_to_the_scores():
    _, table = gappy(30, 20, 2, 0.7, seed=6, noise=0.01)
    scores = held_out(table, seed=0)
    lam, rank = scores.conditional(None, 1)
    assert rank == 1
    assert lam == scores.lams[np.argmin(scores.scores[:, 0])]
    assert scores.conditional(0.123, None)[0] == 0.123


@pytest.mark.parametrize(
    ("table", "lam", "message"),
    [
        (np.zeros((0, 3)), 1.0, r"a table .* got the shape \(0, 3\)"),
        ([1.0, 2.0], 1.0, r"got the shape \(2,\)"),
        ([[np.nan, np.nan]], 1.0, "at least one observation, got 2 NaN"),
        ([[1.0, np.inf]], 1.0, "finite or NaN, got inf in row 0, column 1"),
        ([[1.0]], 0.0, "lam must be positive and finite, got 0.0"),
        ([[1.0]], np.nan, "lam must be positive and finite, got nan"),
    ],
)
def test_bad_input_is_refused_in_one_line(table, lam, message):
    with pytest.raises(ValueError, match=message) as caught:
        soft_impute(table, lam)
    assert "\n" not in str(caught.value)


def test_other_bad_values_are_refused():
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        soft_impute([[1.0]], 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match=r"shape of the table, \(1, 1\), got \(2, 1\)"):
        soft_impute([[1.0]], 1.0, start=[[1.0], [1.0]])
    with pytest.raises(ValueError, match=r"folds must be in 2..1 with 3 observations, got 2"):
        held_out([[1.0, 2.0, 3.0]], seed=0, folds=2)
    _, table = gappy(20, 30, 3, 0.3, seed=4)
    with pytest.raises(RuntimeError, match=r"did not converge in 3 iterations with lam 0\.01"):
        soft_impute(table, 0.01, max_iterations=3)
