"""What every method without a model promises, on random spaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.history import History
from dse.methods import METHODS, make
from dse.metrics import hypervolume
from dse.objective import Objective
from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real, Space

BASELINES = ("random", "sobol", "nsga2", "tpe")
TWO = (Objective("a"), Objective("b"))


@st.composite
def spaces(draw):
    """Products with every kind of parameter, a condition and a constraint now and then, or tables."""
    kinds = draw(st.lists(st.sampled_from("rioptc"), min_size=1, max_size=4))
    parameters = []
    for index, kind in enumerate(kinds):
        name = f"x{index}"
        parameters.append(
            {
                "r": Real(name, -1.0, 3.0),
                "i": Integer(name, 0, draw(st.sampled_from((3, 900))), log=True),
                "o": Ordinal(name, (1, 2, 5, 9)[: draw(st.integers(1, 4))]),
                "p": Permutation(name, ("m", "n", "k")),
                "t": PowerOfTwo(name, 2, 16),
                "c": Categorical(name, ("red", "green", None)[: draw(st.integers(1, 3))]),
            }[kind]
        )
    if draw(st.booleans()):
        parameters.append(Categorical("parent", ("off", "on")))
        parameters.insert(0, Ordinal("child", (1, 2, 3), active_if=("parent", ["on"])))

    def unlucky(p):
        """A quarter of the designs, without any shape."""
        return None if sum(map(ord, str(sorted(p.items(), key=str)))) % 4 else "unlucky"

    try:
        return Space(parameters, constraints=[unlucky] if draw(st.booleans()) else [])
    except ValueError:
        return Space(parameters)


def measure(design):
    """Two costs and a failure that depend on the design alone."""
    rng = np.random.default_rng(sum(map(ord, str(design))))
    return rng.random(2), rng.random() < 0.2


def grow(history, designs):
    """History after the evaluation of some more designs."""
    done, costs, failed = list(history.done), history.costs, list(history.failed)
    for design in designs:
        values, fails = measure(design)
        if fails:
            failed.append(design)
        else:
            done.append(design)
            costs = np.vstack([costs, values])
    return History(
        done,
        costs,
        np.empty((len(done), 0)),
        failed,
        (),
        history.asked | set(designs),
        np.full(len(done), 1.0),
    )


def check_proposal(space, history, proposal, n):
    designs = proposal.designs
    assert len(designs) <= n
    assert len(set(designs)) == len(designs)
    for design in designs:
        assert design not in history.asked
        assert space.is_feasible(design)
        assert space.design(space.parameters_of(design)) == design
    if len(designs) < n:
        assert space.size is not None
        assert len(history.asked) + len(designs) == sum(1 for _ in space.designs())


@pytest.mark.parametrize("name", BASELINES)
@settings(max_examples=6, deadline=None)
@given(space=spaces(), seed=st.integers(0, 3), n=st.integers(1, 4))
def test_proposals_are_new_feasible_and_repeatable(name, space, seed, n):
    method = make(name, space, TWO, seed=seed, initial=4)
    history = History.empty(2)
    for _ in range(5):
        number = len(history.asked)
        proposal = method.propose(number, history, n)
        check_proposal(space, history, proposal, n)
        # Resumed: another object, which has not seen the way here, goes on alike.
        assert make(name, space, TWO, seed=seed, initial=4).propose(number, history, n) == proposal
        assert method.propose(number, history, n) == proposal
        history = grow(history, proposal.designs)


@pytest.mark.parametrize("name", BASELINES)
def test_a_finite_space_is_exhausted_and_then_nothing_comes(name):
    space = Space(
        [Ordinal("x", range(5)), Categorical("y", ("a", "b", "c"))],
        constraints=[lambda p: None if p["x"] != 2 else "two"],
    )
    method = make(name, space, TWO, seed=1)
    history = History.empty(2)
    while designs := method.propose(len(history.asked), history, 2).designs:
        history = grow(history, designs)
    assert history.asked == set(space.designs())


@pytest.mark.parametrize("name", BASELINES)
def test_pending_designs_are_not_proposed_again(name):
    space = Space([Ordinal("x", range(6)), Ordinal("y", range(6))])
    method = make(name, space, TWO, seed=0, initial=3)
    history = grow(History.empty(2), list(space.designs())[::4])
    pending = [design for design in space.designs() if design not in history.asked][:20]
    busy = History(
        history.done,
        history.costs,
        history.constraints,
        history.failed,
        pending,
        history.asked | set(pending),
        history.seconds,
    )
    check_proposal(space, busy, method.propose(50, busy, 5), 5)


def table():
    import pandas as pd

    rng = np.random.default_rng(5)
    rows = {
        (int(2**a), int(b), c)
        for a, b, c in zip(
            rng.integers(0, 6, 150), rng.integers(0, 9, 150), rng.choice(["u", "v"], 150), strict=True
        )
    }
    return pd.DataFrame(sorted(rows), columns=["size", "depth", "mode"])


@pytest.mark.parametrize("name", BASELINES)
def test_proposals_in_a_table_are_its_rows_whatever_their_order(name):
    frame = table()
    columns = list(frame.columns)
    found = []
    for order in (frame, frame.sample(frac=1, random_state=3, ignore_index=True)):
        space = Space.from_table(order, columns)
        method = make(name, space, TWO, seed=2, initial=5)
        history = History.empty(2)
        for _ in range(12):
            proposal = method.propose(len(history.asked), history, 2)
            check_proposal(space, history, proposal, 2)
            history = grow(history, proposal.designs)
        found.append(history.asked)
    assert found[0] == found[1]


def bowls(design):
    """Two sums of squares around two corners, five parameters: few designs are near the front."""
    *numbers, z = design
    x = np.array(numbers) / 10
    return np.array([((x - 0.2) ** 2).sum() + (z != "b"), ((x - 0.8) ** 2).sum() + (z != "b")])


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_methods_that_learn_beat_random_search(name):
    space = Space([*(Ordinal(f"x{i}", range(11)) for i in range(4)), Categorical("z", ("a", "b", "c"))])

    def volume(which, seed):
        method = make(which, space, TWO, seed=seed, initial=10)
        history = History.empty(2)
        while len(history.done) < 60:
            designs = method.propose(len(history.asked), history, 5).designs
            costs = np.vstack([history.costs, [bowls(design) for design in designs]])
            done = (*history.done, *designs)
            history = History(done, costs, np.empty((len(done), 0)), (), (), done, np.ones(len(done)))
        return hypervolume(history.costs, [1.5, 1.5])

    ours, random = ([volume(which, seed) for seed in range(5)] for which in (name, "random"))
    assert np.median(ours) > 1.03 * np.median(random)


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_failures_and_broken_constraints_are_avoided(name):
    """Half of the space fails: designs there become rarer than by chance."""
    space = Space([Ordinal("x", range(30)), Ordinal("y", range(30))])
    shares = []
    for seed in range(3):
        method = make(name, space, TWO, seed=seed, initial=12)
        history = History.empty(2, 1)
        for _ in range(50):
            (design,) = method.propose(len(history.asked), history, 1).designs
            x, y = design
            done, failed = list(history.done), list(history.failed)
            costs, constraints = history.costs, history.constraints
            if x < 15 and y % 2:
                failed.append(design)
            else:
                done.append(design)
                costs = np.vstack([costs, [x + y, 60 - x - y + (x - 20) ** 2]])
                constraints = np.vstack([constraints, [15 - x]])
            asked = history.asked | {design}
            history = History(done, costs, constraints, failed, (), asked, np.ones(len(done)))
        shares.append(np.mean([x >= 15 for x, _ in history.done[-25:]]))
    assert np.median(shares) > 0.7


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_too_little_to_learn_from_is_noted(name):
    space = Space([Ordinal("x", range(30))])
    method = make(name, space, TWO, seed=0, initial=2)
    asked = list(method.propose(0, History.empty(2), 2).designs)
    busy = History((), np.empty((0, 2)), np.empty((0, 0)), (), asked, asked, np.empty(0))
    proposal = method.propose(2, busy, 1)
    assert len(proposal.designs) == 1
    assert "need" in proposal.notes[0]
    assert "got 0" in proposal.notes[0]


def test_transfer_to_a_method_without_a_model_is_noted_once():
    space = Space([Ordinal("x", range(30))])
    method = make("random", space, TWO, seed=0, transfer=[object()])
    first = method.propose(0, History.empty(2), 2)
    assert first.notes == ("random learns no model, so nothing is transferred from other campaigns",)
    assert method.propose(2, grow(History.empty(2), first.designs), 1).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "nsga3"}, "got 'nsga3'; did you mean 'nsga2'"),
        ({"seed": -1}, r"seed must be an integer in 0..2\*\*63 - 1, got -1"),
        ({"seed": True}, "got True"),
        ({"initial": 0}, "initial must be at least 1, got 0"),
        ({"objectives": ()}, "at least one objective"),
    ],
)
def test_bad_arguments_are_named(change, message):
    options = {"name": "random", "objectives": TWO, "seed": 0, "initial": None} | change
    with pytest.raises(ValueError, match=message):
        make(
            options["name"],
            Space([Ordinal("x", (1, 2))]),
            options["objectives"],
            seed=options["seed"],
            initial=options["initial"],
        )


def test_a_missing_extra_is_one_clear_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"method tpe needs optuna.*pip install 'bitfront\[optuna\]'"
    ):
        make("tpe", Space([Ordinal("x", (1, 2))]), TWO, seed=0)


def test_names_are_those_of_the_documentation():
    assert METHODS == ("random", "sobol", "nsga2", "tpe", "qlognehvi", "qlognparego", "predict", "auto")
