import numpy as np
import pytest

from dse._bayes.fidelity import FidelityModel
from dse._bayes.models import Columns

COLUMNS = Columns((0, 1, 2))
PRICES = {0.0: 0.1, 1.0: 1.0}


def truth(points, fidelity):
    """A valley whose cheap version is shifted a little and tilted."""
    x, y = points[:, 0], points[:, 1]
    exact = (x - 0.62) ** 2 + 0.5 * (y - 0.23) ** 2 + 0.15 * np.sin(9.0 * x) * np.cos(5.0 * y)
    return exact + (1.0 - fidelity) * (0.1 + 0.1 * x)


def grid():
    axis = np.linspace(0, 1, 16)
    return np.array([(x, y) for x in axis for y in axis])


def spent_until_found(seed, prices, budget=30.0):
    """Money spent until the best exact value is within 2 % of the range of the best of all."""
    designs, rng = grid(), np.random.default_rng(seed)
    exact = truth(designs, 1.0)
    goal = exact.min() + 0.02 * np.ptp(exact)
    cheapest = min(prices)
    rows = np.column_stack([designs[rng.permutation(len(designs))[:6]], np.full(6, cheapest)])
    values, spent, state = truth(rows[:, :2], cheapest), 6 * prices[cheapest], {}
    while spent < budget:
        done = rows[:, 2] == 1.0
        if done.any() and values[done].min() <= goal:
            return spent
        keep = ~(designs[:, None] == rows[done][:, :2]).all(axis=2).any(axis=1)
        candidates = np.column_stack([designs[keep], np.ones(keep.sum())])
        model = FidelityModel(
            rows, values[:, None], COLUMNS, column=2, prices=prices, seed=len(rows), state=state
        )
        choice = model.choose(candidates)
        row = candidates[[choice.candidate]]
        row[:, 2] = choice.fidelity
        rows = np.concatenate([rows, row])
        values = np.append(values, truth(row[:, :2], choice.fidelity))
        spent += prices[choice.fidelity]
    return budget


def test_two_fidelities_find_the_minimum_for_less_than_the_exact_one_alone():
    both = [spent_until_found(seed, PRICES) for seed in range(3)]
    alone = [spent_until_found(seed, {1.0: 1.0}) for seed in range(3)]
    assert np.median(both) < 0.7 * np.median(alone)


def history(correlated):
    rng = np.random.default_rng(0)
    points = rng.random((30, 2))
    fidelity = np.repeat([0.0, 1.0], [15, 15])
    values = truth(points, fidelity)
    if not correlated:
        values[:15] = rng.standard_normal(15)
    return np.column_stack([points, fidelity]), values[:, None]


def test_a_cheap_evaluation_that_tells_nothing_is_not_bought():
    candidates = np.column_stack([np.random.default_rng(1).random((40, 2)), np.ones(40)])
    prices = {0.0: 0.2, 1.0: 1.0}
    bought = [
        FidelityModel(*history(correlated), COLUMNS, column=2, prices=prices).choose(candidates).fidelity
        for correlated in (True, False)
    ]
    assert bought == [0.0, 1.0]


def test_equal_prices_buy_the_exact_evaluation():
    rows, costs = history(correlated=True)
    candidates = np.column_stack([np.random.default_rng(2).random((40, 2)), np.ones(40)])
    model = FidelityModel(rows, costs, COLUMNS, column=2, prices={0.0: 1.0, 1.0: 1.0})
    assert model.choose(candidates).fidelity == 1.0


def test_a_pair_that_was_evaluated_is_not_bought_again():
    rows, costs = history(correlated=True)
    candidates = rows[:15].copy()  # evaluated at low fidelity, all of them
    model = FidelityModel(rows, costs, COLUMNS, column=2, prices={0.0: 1e-9, 1.0: 1.0})
    assert model.choose(candidates).fidelity == 1.0


def test_a_lower_fidelity_than_a_design_had_is_never_chosen():
    rows, costs = history(correlated=True)
    candidates = np.random.default_rng(3).random((40, 3))
    prices = {0.0: 1e-9, 0.5: 1e-9, 1.0: 1.0}
    model = FidelityModel(rows, costs, COLUMNS, column=2, prices=prices)
    assert model.choose(candidates).fidelity < 1.0
    assert model.choose(candidates, above=np.full(40, 0.2)).fidelity == 0.5
    assert model.choose(candidates, above=np.full(40, 0.5)).fidelity == 1.0
    assert model.choose(candidates, dearest=1e-10).fidelity == 1.0


def test_a_pending_evaluation_is_not_bought_again_next_to_it():
    rows, costs = history(correlated=True)
    candidates = np.column_stack([np.random.default_rng(3).random((40, 2)), np.ones(40)])
    model = FidelityModel(rows, costs, COLUMNS, column=2, prices={0.0: 1e-9, 1.0: 1.0})
    first = model.choose(candidates)
    pending = candidates[[first.candidate]]
    pending[:, 2] = first.fidelity
    gain = model._reduction(pending, candidates, np.ones(40))
    model.add_pending(pending)
    assert model._reduction(pending, candidates, np.ones(40)) < 0.2 * gain
    assert model.choose(candidates) != first


def test_a_pending_evaluation_of_low_fidelity_improves_nothing():
    rows, costs = history(correlated=True)
    candidates = np.column_stack([np.random.default_rng(3).random((40, 2)), np.ones(40)])
    best = candidates[[0]]
    best[:, :2] = [0.62, 0.23]
    plain, low, full = (
        FidelityModel(rows, costs, COLUMNS, column=2, prices=PRICES, pending_rows=pending)._counted(30, 31)
        if len(pending)
        else None
        for pending in (best[:0], best * [1, 1, 0], best)
    )
    assert plain is None
    assert not low[:, 30].any()
    assert full[:, 30].all()
    assert low[:, 15:30].all()
    assert not low[:, :15].any()  # nor do finished ones


def test_each_objective_learns_from_cheap_results_where_these_tell_of_its_exact_ones():
    rows, costs = history(correlated=True)
    rows[:15, :2], good = rows[15:, :2], costs.copy()
    good[:15] = truth(rows[:15], 0.0)[:, None]
    against = good.copy()
    against[:15] = -3.0 * against[15:]  # the opposite of what they should be, at the same designs
    model = FidelityModel(rows, np.column_stack([good, against]), COLUMNS, column=2, prices=PRICES)
    assert model.misled == (1,)
    assert [len(each.loo.mean) for each in model.models] == [30, 15]
    alone = FidelityModel(rows, against, COLUMNS, column=2, prices=PRICES)
    candidates = np.column_stack([np.random.default_rng(3).random((40, 2)), np.zeros(40)])
    assert not alone._reduction(candidates, candidates, np.ones(40)).any()
    assert alone._reduction(alone.exact(candidates), candidates, np.ones(40)).all()
    assert alone.choose(candidates).fidelity == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prices": {0.0: 1.0}}, "must have one of fidelity 1.0"),
        ({"prices": {2.0: 1.0, 1.0: 1.0}}, "must lie in 0..1, got 2.0"),
        ({"prices": {0.0: 0.0, 1.0: 1.0}}, "must be positive, got 0.0"),
        ({"column": 3}, "must be numeric, got 3"),
    ],
)
def test_bad_options_are_named(options, message):
    rows, costs = history(correlated=True)
    with pytest.raises(ValueError, match=message):
        FidelityModel(rows, costs, COLUMNS, **{"column": 2, "prices": PRICES, **options})
