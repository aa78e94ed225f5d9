"""Allocations: every method against an enumeration written here."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.allocate import (
    Allocation,
    AllocationError,
    cheapest_meeting,
    exact,
    exhaustive,
    greedy,
    greedy_by_size,
    lagrangian,
    supported,
)

# Small whole numbers make ties, and limits that are met exactly; others make sums that round.
NUMBER = st.one_of(st.integers(0, 12).map(float), st.floats(0, 1e3).map(lambda x: x + 0.1))


@st.composite
def allocations(draw):
    g, o = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    table = st.lists(st.lists(NUMBER, min_size=o, max_size=o), min_size=g, max_size=g)
    loss = np.array(draw(table))
    if o > 1 and draw(st.booleans()):
        loss[draw(st.integers(0, g - 1)), draw(st.integers(0, o - 1))] = np.inf
    return Allocation(
        groups=tuple(f"g{k}" for k in range(g)),
        options=tuple(f"o{k}" for k in range(o)),
        cost=np.array(draw(table)),
        loss=loss,
    )


def every(problem):
    """All choices as (cost, loss, choice), by plain loops."""
    for choice in product(range(len(problem.options)), repeat=len(problem.groups)):
        cost = loss = 0.0
        for g, o in enumerate(choice):
            cost, loss = cost + float(problem.cost[g, o]), loss + float(problem.loss[g, o])
        if np.isfinite(loss):
            yield cost, loss, choice


def asked(problem, draw):
    """A limit between the least and the largest sum, often one that a choice meets exactly."""
    column = draw.draw(st.integers(0, 1))
    sums = sorted(row[column] for row in every(problem))
    limit = draw.draw(st.one_of(st.sampled_from(sums), st.floats(sums[0], sums[-1])))
    best = min(row[1 - column] for row in every(problem) if row[column] <= limit * (1 + 1e-9))
    return column, limit, best


@settings(max_examples=150, deadline=None)
@given(allocations(), st.data())
def test_exhaustive_and_exact_are_the_best_of_all_choices(problem, draw):
    column, limit, best = asked(problem, draw)
    option = {("max_cost", "max_loss")[column]: limit}
    of = (problem.cost_of, problem.loss_of)
    for method in (exhaustive, exact):
        choice = method(problem, **option)
        assert of[column](choice) <= limit * (1 + 1e-9)
        assert of[1 - column](choice) == pytest.approx(best, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(allocations(), st.data())
def test_heuristics_keep_the_limit_and_the_dual_bounds_the_best(problem, draw):
    column, limit, best = asked(problem, draw)
    option = {("max_cost", "max_loss")[column]: limit}
    of = (problem.cost_of, problem.loss_of)
    choice, bound = lagrangian(problem, **option)
    assert bound <= best * (1 + 1e-9) + 1e-9
    for found in (choice, greedy(problem, **option), greedy_by_size(problem, **option)):
        assert of[column](found) <= limit * (1 + 1e-9)
        assert of[1 - column](found) >= best - 1e-9 * abs(best)


@settings(max_examples=60, deadline=None)
@given(allocations(), st.data())
def test_the_best_ones_follow_each_other_where_found_ones_are_excluded(problem, draw):
    column, limit, _ = asked(problem, draw)
    kept = sorted(row[1 - column] for row in every(problem) if row[column] <= limit * (1 + 1e-9))[:4]
    option, of = {("max_cost", "max_loss")[column]: limit}, (problem.cost_of, problem.loss_of)
    found = []
    for value in kept:
        found.append(exact(problem, **option, without=found))
        assert of[1 - column](found[-1]) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert len(set(found)) == len(found)


@settings(max_examples=100, deadline=None)
@given(allocations(), st.floats(1e-3, 1e3))
def test_the_path_holds_the_minimum_of_cost_and_loss_at_any_multiplier(problem, multiplier):
    least = min(cost + multiplier * loss for cost, loss, _ in every(problem))
    path = supported(problem)
    on_path = min(problem.cost_of(c) + multiplier * problem.loss_of(c) for c in path)
    assert on_path == pytest.approx(least, rel=1e-9, abs=1e-9)
    losses = [problem.loss_of(c) for c in path]
    assert all(b <= a + 1e-9 for a, b in pairwise(losses))


def layers(g=8, seed=0):
    """Bytes and losses of layers with 2 to 8 bits."""
    rng = np.random.default_rng(seed)
    bits, size = np.arange(2, 9), rng.integers(10, 1000, g).astype(float)
    loss = np.outer(rng.lognormal(0, 2, g), 4.0**-bits)
    return Allocation(
        groups=tuple(f"l{k}" for k in range(g)),
        options=tuple(map(str, bits)),
        cost=np.outer(size, bits),
        loss=loss,
    )


def test_the_greedy_ones_take_the_steps_by_hand():
    problem = Allocation(
        groups=("a", "b"),
        options=("wide", "narrow"),
        cost=np.array([[10.0, 5.0], [100.0, 60.0]]),
        loss=np.array([[0.0, 1.0], [0.0, 10.0]]),
    )
    # Per unit of loss a saves 5 and b 4; by size b comes first.
    assert greedy(problem, max_loss=10.0) == (1, 0)
    assert greedy_by_size(problem, max_loss=10.0) == (0, 1)
    assert exact(problem, max_loss=10.0) == (0, 1)
    assert greedy(problem, max_loss=11.0) == (1, 1)


def test_sums_that_are_the_limit_but_for_rounding_keep_it():
    # Many choices sum to nine ninths, in float64 to 1 or to a little more.
    ninth = np.tile([0.0, 1 / 9, 2 / 9, 3 / 9], (12, 1))
    cost = np.array([[9.0, 5.0, 3.0, 2.0]]) * np.arange(1, 13)[:, None]
    problem = Allocation(groups=tuple("abcdefghijkl"), options=tuple("wxyz"), cost=cost, loss=ninth)
    whole = Allocation(groups=problem.groups, options=problem.options, cost=cost, loss=np.round(9 * ninth))
    best = exhaustive(whole, max_loss=9.0)
    assert problem.cost_of(exact(problem, max_loss=1.0)) == problem.cost_of(best)
    assert problem.cost_of(exhaustive(problem, max_loss=1.0)) == problem.cost_of(best)


@pytest.mark.parametrize("seed", range(5))
def test_losses_over_many_orders_of_magnitude_do_not_mislead_the_solver(seed):
    problem = layers(6, seed)
    limit = float(np.quantile([row[1] for row in every(problem)], 0.01))
    best = exhaustive(problem, max_loss=limit)
    assert problem.cost_of(exact(problem, max_loss=limit)) == problem.cost_of(best)
    assert lagrangian(problem, max_loss=limit).bound <= problem.cost_of(best)


def test_a_target_is_met_by_the_cheapest_choice_of_the_path_with_few_questions():
    problem = layers()
    path = supported(problem)
    for k in (0, 3, len(path) - 1):
        asked_of, limit = [], problem.loss_of(path[k])

        def meets(choice, limit=limit, asked_of=asked_of):
            asked_of.append(choice)
            return problem.loss_of(choice) <= limit

        assert cheapest_meeting(problem, meets) == path[k]
        assert len(asked_of) <= 2 + np.log2(len(path))
    with pytest.raises(AllocationError, match="least loss"):
        cheapest_meeting(problem, lambda choice: False)


@pytest.mark.parametrize("method", [exhaustive, exact, greedy, greedy_by_size, lagrangian])
def test_bad_limits_are_refused_in_one_line(method):
    problem = layers(3)
    with pytest.raises(AllocationError, match=r"max_loss must be at least .*, got -1"):
        method(problem, max_loss=-1.0)
    with pytest.raises(AllocationError, match=r"max_cost must be at least .*, got 0"):
        method(problem, max_cost=0.0)
    with pytest.raises(AllocationError, match="got nan"):
        method(problem, max_cost=np.nan)
    with pytest.raises(ValueError, match="exactly one of max_loss and max_cost must be given, got neither"):
        method(problem)
    with pytest.raises(ValueError, match="got both"):
        method(problem, max_loss=1.0, max_cost=1.0)


def test_exhaustive_search_is_guarded():
    with pytest.raises(ValueError, match="takes at most 100 choices, got 343"):
        exhaustive(layers(3), max_loss=1.0, most=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ("a", "a")}, "groups must be distinct names"),
        ({"options": ()}, "options must be distinct names, at least one"),
        ({"cost": np.zeros((2, 3))}, r"cost must have the shape \(2, 2\)"),
        ({"cost": np.array([[0.0, np.inf], [0, 0]])}, "cost of a with y must be finite, got inf"),
        ({"loss": np.array([[0.0, 0.0], [0, np.nan]])}, "loss of b with y must be finite, got nan"),
        ({"loss": np.array([[0.0, 0.0], [np.inf, np.inf]])}, "an option of finite loss, b has none"),
    ],
)
def test_bad_tables_are_refused_in_one_line(change, message):
    good = {"groups": ("a", "b"), "options": ("x", "y"), "cost": np.zeros((2, 2)), "loss": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=message):
        Allocation(**(good | change))


def test_no_choice_left_is_said():
    problem = Allocation(groups=("a",), options=("x",), cost=np.ones((1, 1)), loss=np.ones((1, 1)))
    with pytest.raises(AllocationError, match="no other choice keeps the limit 1"):
        exact(problem, max_loss=1.0, without=[(0,)])
