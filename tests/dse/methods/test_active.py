import numpy as np
import pytest

from dse.history import History
from dse.methods import make
from dse.methods.active import scaled
from dse.objective import Objective
from dse.space import Ordinal, Real, Space


def value(design):
    x, y = design
    return np.exp(x / 8) + 0.1 * y


def history_of(designs, pending=()):
    costs = np.array([[value(design)] for design in designs]).reshape(-1, 1)
    empty, seconds = np.empty((len(designs), 0)), np.ones(len(designs))
    return History(designs, costs, empty, (), pending, [*designs, *pending], seconds)


SPACE = Space(
    [Ordinal("x", range(30)), Ordinal("y", range(30))],
    constraints=[lambda p: None if p["x"] + p["y"] < 50 else "corner"],
)


def test_proposals_are_new_feasible_and_repeatable():
    method = make("predict", SPACE, [Objective("a")], seed=0, initial=6)
    first = method.propose(0, History.empty(1), 6).designs
    history = history_of(first, pending=[(3, 3), (4, 4)])
    proposal = method.propose(8, history, 5)
    assert len(set(proposal.designs)) == 5
    assert not set(proposal.designs) & history.asked
    assert all(SPACE.is_feasible(design) for design in proposal.designs)
    assert make("predict", SPACE, [Objective("a")], seed=0, initial=6).propose(8, history, 5) == proposal


def test_a_continuum_has_candidates_too():
    space = Space([Real("x", 0.0, 29.0), Real("y", 0.0, 29.0)])
    method = make("predict", space, [Objective("a")], seed=0, initial=6)
    first = method.propose(0, History.empty(1), 6).designs
    assert len(method.propose(6, history_of(first), 3).designs) == 3


def test_known_and_constant_objectives_are_not_learnt():
    method = make("predict", SPACE, [Objective("a", known=lambda p: p["x"])], seed=0, initial=6)
    first = method.propose(0, History.empty(1), 6).designs
    assert method.propose(6, history_of(first), 1).notes == ("Sobol design: every objective is known",)
    method = make("predict", SPACE, [Objective("a")], seed=0, initial=6)
    few = method.propose(6, history_of(first[:4], pending=first[4:]), 1)
    assert few.notes == ("Sobol design: a model of a needs 5 results, got 4",)
    assert len(few.designs) == 1


def test_wide_quantities_are_modelled_in_the_logarithm():
    costs = np.array([1.0, 100.0])
    assert scaled(Objective("a"), costs)[2].tolist() == [0.0, 2.0]
    assert scaled(Objective("a", minimize=False), -costs)[2].tolist() == [0.0, -2.0]
    for objective, same in (
        (Objective("a", transform="none"), costs),
        (Objective("a"), costs / 20 + 1),
        (Objective("a"), costs - 1),
        (Objective("a"), np.empty(0)),
    ):
        assert scaled(objective, same)[2] is same


def test_sources_are_learnt_from():
    import pandas as pd

    rows = [(x, y, value((x, y))) for x in range(0, 30, 3) for y in range(0, 20, 5)]
    source = pd.DataFrame(rows, columns=["x", "y", "a"])
    method = make("predict", SPACE, [Objective("a")], seed=0, initial=6, transfer=[source])
    designs = method.propose(0, History.empty(1), 6).designs
    (model,), _ = method.models(history_of(designs))
    (alone,), _ = make("predict", SPACE, [Objective("a")], seed=0, initial=6).models(history_of(designs))
    unseen = [design for design in SPACE.designs() if design not in designs][::7]
    truth = np.log10([value(design) for design in unseen])
    errors = [np.abs(each.predict(unseen)[0] - truth).mean() for each in (model, alone)]
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match="no parameter in common"):
        make("predict", SPACE, [Objective("a")], seed=0, transfer=[source[["a"]]])


def test_what_is_far_from_all_results_is_measured_first():
    near = [design for design in SPACE.designs() if design[0] < 8 and design[1] < 8][::5]
    method = make("predict", SPACE, [Objective("a")], seed=0, initial=6)
    (first,) = method.propose(len(near), history_of(near), 1).designs
    assert max(first) >= 15
    # A design under way counts as measured: the next one is elsewhere.
    (second,) = method.propose(len(near), history_of(near, pending=[first]), 1).designs
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) >= 5


@pytest.mark.parametrize("left", [1, 2])
def test_the_last_designs_come_without_a_model(left):
    space = Space([Ordinal("x", range(10))])
    designs = list(space.designs())[:-left]
    costs = np.arange(float(len(designs)))[:, None]
    empty, seconds = np.empty((len(designs), 0)), np.ones(len(designs))
    history = History(designs, costs, empty, (), (), designs, seconds)
    found = make("predict", space, [Objective("a")], seed=0).propose(len(designs), history, 2).designs
    assert set(found) == {(10 - 1 - index,) for index in range(left)}
