"""D-optimal choices against brute force, a general solver, and recomputation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from studies.accuracy.peppp.design import (
    Relaxed,
    greedy,
    information,
    pivoted,
    random_choice,
    relaxed,
    rounded,
)


def problem(n, rank, seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((n, rank)), random.uniform(0.5, 2.0, n)


def log_det(y, chosen, ridge):
    matrix = ridge * np.eye(y.shape[1]) + sum(np.outer(y[j], y[j]) for j in chosen)
    return np.log(np.linalg.det(matrix))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_relaxed_optimum_is_that_of_a_general_solver(seed, share):
    y, costs = problem(9, 3, seed)
    budget = share * costs.sum()
    fits = costs <= budget
    found = relaxed(y, costs, budget, ridge=0.1)

    def loss(v):
        return -information(y, v, 0.1)

    def slope(v):
        return -np.einsum("ij,ji->i", y, np.linalg.solve(0.1 * np.eye(3) + (y.T * v) @ y, y.T))

    other = minimize(
        loss,
        np.where(fits, 0.05, 0.0),
        jac=slope,
        method="SLSQP",
        bounds=[(0.0, float(fit)) for fit in fits],
        constraints=LinearConstraint(costs, ub=budget),
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert found.log_det == pytest.approx(-other.fun, abs=2e-6)
    assert found.gap <= 1e-6
    assert costs @ found.weights <= budget * (1 + 1e-12)
    assert (found.weights >= 0).all()
    assert (found.weights <= 1).all()


def test_the_relaxed_optimum_of_two_directions_is_found_on_a_grid():
    # Orthogonal unit vectors: log(r + v1) + log(r + v2), v1 + 1.2 v2 <= 1.5.
    grid = np.linspace(0, 1, 100_001)
    best = (np.log(0.5 + grid) + np.log(0.5 + np.clip((1.5 - grid) / 1.2, 0, 1))).max()
    assert relaxed(np.eye(2), [1.0, 1.2], 1.5, ridge=0.5).log_det == pytest.approx(best, abs=1e-6)
    # One that costs more than the budget by itself can never be chosen.
    assert relaxed(np.eye(2), [1.0, 2.0], 1.5, ridge=0.5).weights[1] == 0


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), n=st.integers(2, 9), rank=st.integers(1, 4), share=st.floats(0.15, 0.95))
def test_no_choice_beats_the_bound_and_every_choice_is_within_the_budget(seed, n, rank, share):
    y, costs = problem(n, rank, seed)
    budget = max(share * costs.sum(), costs.min())
    solution = relaxed(y, costs, budget, ridge=0.05)
    subsets = [
        subset
        for size in range(n + 1)
        for subset in combinations(range(n), size)
        if costs[[*subset]].sum() <= budget
    ]
    best = max(log_det(y, subset, 0.05) for subset in subsets)
    assert best <= solution.log_det + solution.gap + 1e-9
    for chosen in (
        rounded(solution, y, costs, budget, ridge=0.05),
        greedy(y, costs, budget, ridge=0.05),
        pivoted(y, costs, budget),
        random_choice(costs, budget, seed=seed),
    ):
        assert len(set(chosen.tolist())) == len(chosen) > 0
        assert costs[chosen].sum() <= budget * (1 + 1e-12)
        left = budget - costs[chosen].sum()
        assert all(costs[j] > left * (1 - 1e-9) for j in range(n) if j not in chosen)


def test_rounding_comes_close_to_the_best_choice_of_all():
    missed, without = [], []
    for seed in range(12):
        y, costs = problem(10, 3, seed)
        budget = 0.4 * costs.sum()
        solution = relaxed(y, costs, budget, ridge=0.05)
        chosen = rounded(solution, y, costs, budget, ridge=0.05)
        fits = (
            subset
            for size in range(11)
            for subset in combinations(range(10), size)
            if costs[[*subset]].sum() <= budget
        )
        best = max(log_det(y, subset, 0.05) for subset in fits)
        missed.append(best - log_det(y, chosen, 0.05))
        without.append(best - log_det(y, greedy(y, costs, budget, ridge=0.05), 0.05))
    assert min(missed) >= -1e-9
    assert max(missed) < 0.35  # nats, of about 6
    assert np.mean(missed) < 0.5 * np.mean(without)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 12), rank=st.integers(1, 5), share=st.floats(0.2, 1.0))
def test_greedy_updates_equal_recomputation(seed, n, rank, share):
    y, costs = problem(n, rank, seed)
    budget = max(share * costs.sum(), costs.min())
    chosen, left = [], budget
    while True:
        inverse = np.linalg.inv(0.05 * np.eye(rank) + sum(np.outer(y[j], y[j]) for j in chosen))
        open_ = [j for j in range(n) if j not in chosen and costs[j] <= left]
        if not open_:
            break
        best = max(open_, key=lambda j: y[j] @ inverse @ y[j] / costs[j])
        before = log_det(y, chosen, 0.05)
        gain = y[best] @ inverse @ y[best]
        chosen.append(best)
        left -= costs[best]
        assert log_det(y, chosen, 0.05) == pytest.approx(before + np.log1p(gain), abs=1e-8)
    assert greedy(y, costs, budget, ridge=0.05).tolist() == chosen


def test_greedy_goes_on_from_what_was_taken_before():
    y, costs = problem(12, 3, 0)
    whole = greedy(y, costs, 0.5 * costs.sum(), ridge=0.1)
    again = greedy(y, costs, 0.5 * costs.sum(), ridge=0.1, first=whole[:2])
    assert again.tolist() == whole.tolist()


def test_rounding_follows_the_weights():
    y, costs = np.eye(4), np.ones(4)
    solution = Relaxed(np.array([0.2, 1.0, 0.0, 0.8]), 0.0, 0.0)
    assert rounded(solution, y, costs, 2.0, ridge=1.0).tolist() == [1, 3]


def test_a_budget_for_everything_takes_everything():
    y, costs = problem(6, 2, 1)
    solution = relaxed(y, costs, costs.sum() + 1, ridge=0.1)
    assert solution.weights.tolist() == [1.0] * 6
    assert solution.gap == pytest.approx(0.0, abs=1e-12)
    assert sorted(greedy(y, costs, costs.sum() + 1, ridge=0.1)) == list(range(6))


def test_pivots_are_the_directions_that_differ_most():
    y = np.array([[3.0, 0.0], [2.9, 0.1], [0.0, 1.0], [0.0, 0.9]])
    assert pivoted(y, np.ones(4), 2.0).tolist() == [0, 2]


def test_random_choices_depend_on_the_seed_alone():
    costs = np.ones(30)
    first = random_choice(costs, 5.0, seed=1)
    assert first.tolist() == random_choice(costs, 5.0, seed=1).tolist()
    assert first.tolist() != random_choice(costs, 5.0, seed=2).tolist()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_of_memory_and_of_errors_change_no_design(scale):
    y, costs = problem(20, 3, 2)
    budget = 0.3 * costs.sum()
    plain = relaxed(y, costs, budget, ridge=0.01)
    other = relaxed(y * scale, costs * 1024, budget * 1024, ridge=0.01 * scale**2)
    np.testing.assert_allclose(other.weights, plain.weights, atol=1e-3)
    assert other.log_det == pytest.approx(plain.log_det + 6 * np.log(scale), abs=1e-6)


@pytest.mark.parametrize(
    ("costs", "budget", "ridge", "message"),
    [
        ([1.0, np.nan, 1.0], 2.0, 1.0, "costs must be positive and finite, got nan of configuration 1"),
        ([1.0, 0.0, 1.0], 2.0, 1.0, "costs must be positive and finite, got 0.0 of configuration 1"),
        ([1.0, 1.0], 2.0, 1.0, r"costs must have the shape \(3,\)"),
        ([4.0, 3.0, 5.0], 2.5, 1.0, "at least 3, the cost of the cheapest configuration, got 2.5"),
        ([4.0, 3.0, 5.0], np.nan, 1.0, "budget must be finite and at least 3"),
        ([1.0, 1.0, 1.0], 2.0, 0.0, "ridge must be positive and finite, got 0.0"),
    ],
)
def test_bad_input_is_refused_in_one_line(costs, budget, ridge, message):
    for choose in (relaxed, greedy):
        with pytest.raises(ValueError, match=message) as caught:
            choose(np.ones((3, 1)), costs, budget, ridge=ridge)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"got the shape \(0, 2\)"):
        relaxed(np.ones((0, 2)), [], 1.0, ridge=1.0)


@pytest.mark.parametrize("ridge", [1e-12, 1e-6, 1e-2])
def test_equal_embeddings_are_no_obstacle(ridge):
    rng = np.random.default_rng(0)
    embeddings = 100.0 * rng.normal(size=(3, 1))[rng.integers(0, 3, 36)]
    found = relaxed(embeddings, np.ones(36), 4.0, ridge=ridge)
    assert found.gap <= 1e-6
    assert found.weights.sum() == pytest.approx(4.0, rel=1e-5)
