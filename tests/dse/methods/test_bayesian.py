import numpy as np
import pandas as pd
import pytest

from dse.history import History
from dse.methods import make
from dse.objective import Objective
from dse.space import Categorical, Ordinal, Real, Space

NAMES = ("qlognehvi", "qlognparego", "auto")


def history(space, costs, designs, *, failed=(), pending=()):
    done = tuple(designs)
    width = len(costs({name: "a" if name == "z" else 1 for name in space.names}))
    values = np.array([costs(space.parameters_of(d)) for d in done]).reshape(len(done), width)
    return History(
        done,
        values,
        np.empty((len(done), 0)),
        tuple(failed),
        tuple(pending),
        frozenset((*done, *failed, *pending)),
        np.full(len(done), np.nan),
    )


def small():
    """180 designs, of which 120 are allowed."""
    return Space(
        [
            Ordinal("x", range(10)),
            Ordinal("y", [1, 2, 4, 8, 16, 32], log=True),
            Categorical("z", ["a", "b", "c"]),
        ],
        constraints=[lambda p: "odd" if (p["x"] + p["y"]) % 3 == 0 else None],
    )


def costs(p):
    return [(p["x"] - 3) ** 2 + p["y"] / 8 + (p["z"] == "b"), 10 / p["y"] + 0.1 * p["x"]]


WANTED = (Objective("time"), Objective("area"))


def grow(method, space, n, evaluate=costs):
    designs = []
    while len(designs) < n:
        found = method.propose(len(designs), history(space, evaluate, designs), 1).designs
        if not found:
            break
        designs += found
    return designs


@pytest.mark.parametrize("name", NAMES)
def test_proposals_are_feasible_and_never_repeated(name):
    space = small()
    designs = grow(make(name, space, WANTED, seed=1, initial=5), space, 16)
    assert len(set(designs)) == 16
    assert all(space.is_feasible(design) for design in designs)


def test_a_method_made_anew_at_every_step_proposes_the_same():
    space = small()
    wanted = grow(make("qlognehvi", space, WANTED, seed=2, initial=4), space, 14)
    designs = wanted[:4]
    while len(designs) < 14:
        fresh = make("qlognehvi", space, WANTED, seed=2, initial=4)
        designs += fresh.propose(len(designs), history(space, costs, designs), 1).designs
    assert designs == wanted


def test_a_small_space_is_exhausted_and_then_nothing_is_left():
    space = Space([Ordinal("x", range(4)), Ordinal("y", range(3))])
    method = make("auto", space, [Objective("loss")], seed=0, initial=3)
    designs = grow(method, space, 20, lambda p: [p["x"] * p["y"]])
    assert sorted(designs) == sorted(space.designs())


@pytest.mark.parametrize("real", [False, True])
def test_batches_are_distinct_and_differ_from_what_is_pending(real):
    x = Real("x", 0.0, 9.0) if real else Ordinal("x", range(40))
    space = Space([x, Ordinal("y", range(1, 41)), Ordinal("w", range(40)), Categorical("z", ["a", "b", "c"])])
    method = make("qlognehvi", space, WANTED, seed=3, initial=6)
    done = list(method.propose(0, history(space, costs, []), 6).designs)
    pending = method.propose(6, history(space, costs, done), 2).designs
    batch = method.propose(8, history(space, costs, done, pending=pending), 3).designs
    assert len({*done, *pending, *batch}) == 11
    assert all(space.is_feasible(design) for design in batch)


def test_the_initial_design_is_finished_within_a_batch():
    space = small()
    method = make("qlognehvi", space, WANTED, seed=4, initial=6)
    done = list(method.propose(0, history(space, costs, []), 5).designs)
    batch = method.propose(5, history(space, costs, done), 3).designs
    sequence = make("sobol", space, WANTED, seed=4).propose(0, history(space, costs, []), 6).designs
    assert batch[0] == sequence[5]
    assert len({*done, *batch}) == 8


def test_attached_designs_count_as_the_initial_design():
    space = small()
    ten = list(space.designs())[::12]
    proposal = make("auto", space, WANTED, seed=5).propose(10, history(space, costs, ten), 1)
    sobol = make("sobol", space, WANTED, seed=5).propose(10, history(space, costs, ten), 1)
    assert proposal.designs != sobol.designs
    assert proposal.notes == ()


def test_without_results_the_sequence_goes_on_and_a_note_says_why():
    space = small()
    pending = tuple(space.designs())[:12]
    proposal = make("auto", space, WANTED, seed=6).propose(12, history(space, costs, [], pending=pending), 2)
    assert len(set(proposal.designs)) == 2
    assert "a model needs 2 finished designs, got 0" in proposal.notes[0]


def test_with_failures_only_something_else_is_tried():
    space = small()
    failed = [design for design in space.designs() if design[0] < 4][:12]
    proposal = make("auto", space, WANTED, seed=7).propose(12, history(space, costs, [], failed=failed), 3)
    assert "nothing feasible yet" in proposal.notes[0]
    assert len({*proposal.designs, *failed}) == 15
    assert max(design[0] for design in proposal.designs) > 6


def test_a_known_objective_is_computed_for_every_candidate_once():
    space, calls = small(), []

    def area(p):
        calls.append(tuple(p.values()))
        return costs(p)[1]

    method = make("auto", space, [Objective("time"), Objective("area", known=area)], seed=8, initial=4)
    grow(method, space, 12)
    assert len(calls) == len(set(calls))


def test_an_error_in_a_known_objective_says_which_and_where():
    wanted = [Objective("time"), Objective("area", known=lambda p: 1 / (p["x"] - 3))]
    space = small()
    method = make("auto", space, wanted, seed=9, initial=2)
    with pytest.raises(ZeroDivisionError) as caught:
        method.propose(10, history(space, costs, list(space.designs())[:10]), 1)
    assert "in the known objective area of {'x': 3" in caught.value.__notes__[0]


def test_the_front_of_a_table_is_found_whatever_the_order_of_its_rows():
    rng = np.random.default_rng(10)
    frame = pd.DataFrame({"x": rng.integers(0, 12, 300), "y": 2 ** rng.integers(0, 8, 300), "z": 0})
    frame["z"] = rng.choice(["a", "b", "c"], 300)
    frame = frame.drop_duplicates().reset_index(drop=True)
    for table in (frame, frame.sort_values("y", ascending=False).reset_index(drop=True)):
        space = Space.from_table(table, ["x", "y", "z"])
        designs = grow(make("qlognehvi", space, WANTED, seed=11, initial=8), space, 24)
        values = np.array([costs(space.parameters_of(design)) for design in space.designs()])
        found = np.array([costs(space.parameters_of(design)) for design in designs])
        best = values.min(axis=0)
        # The ends of the front, and the best compromise.
        np.testing.assert_allclose(found.min(axis=0), best, atol=0.15)
        total = (values / values.max(axis=0)).sum(axis=1).min()
        assert (found / values.max(axis=0)).sum(axis=1).min() == pytest.approx(total, abs=0.05)


def sibling(shift):
    """Results of the same space, of which the first objective is related and the second is missing."""
    rows = list(small().designs())[::2]
    frame = pd.DataFrame([small().parameters_of(design) for design in rows])
    frame["time"] = [2.0 * costs(p)[0] + shift for p in frame.to_dict("records")]
    return frame


def test_a_sibling_campaign_is_learnt_from_and_its_weight_is_shown():
    space = small()
    plain = make("auto", space, WANTED, seed=12)
    method = make("auto", space, WANTED, seed=12, transfer=[sibling(5.0)])
    designs = list(method.propose(0, history(space, costs, []), 5).designs)
    # The best of the sibling comes first.
    assert costs(space.parameters_of(designs[0]))[0] < 1.0
    assert len(set(designs)) == 5
    proposal = method.propose(5, history(space, costs, designs), 1)
    assert proposal.notes[0].startswith("transfer of time from source 1: weight ")
    every = list(space.designs())
    designs = every[3::11]
    proposal = method.propose(len(designs), history(space, costs, designs), 1)
    assert proposal.notes[0].startswith("transfer of time from source 1: weight ")
    assert float(proposal.notes[0].rsplit(" ", 1)[1]) > 0.3
    fresh = np.array([costs(space.parameters_of(d))[0] for d in space.designs()])

    def error(made):
        part = made.model(5, history(space, costs, designs)).models[0]
        mean, _ = part.predict(made._rows(every))
        return np.sqrt(np.mean((mean - part.standardised(fresh)) ** 2))

    assert error(method) < 0.8 * error(plain)


def test_a_source_that_tells_nothing_changes_no_proposal_of_the_models():
    space = small()
    noise = sibling(5.0)
    noise["time"] = np.random.default_rng(1).permutation(noise["time"].to_numpy())
    done = history(space, costs, list(space.designs())[3::11])
    proposal = make("auto", space, WANTED, seed=12, transfer=[noise]).propose(9, done, 2)
    assert proposal.notes[0].startswith("no transfer of time from source 1: it does not predict its own")
    assert proposal.designs == make("auto", space, WANTED, seed=12, initial=5).propose(9, done, 2).designs


def test_a_source_without_common_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter in common"):
        make("auto", small(), WANTED, seed=0, transfer=[pd.DataFrame({"q": [1, 2], "time": [1.0, 2.0]})])
