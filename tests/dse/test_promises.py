"""What every method promises of its proposals, on random spaces and in random courses of a campaign."""

import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.methods import METHODS
from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real
from oracles.spaces import is_legal, spaces

KINDS = (Ordinal, PowerOfTwo, Categorical, Permutation, Integer, Real)
LEARNING = [name for name in METHODS if name not in ("random", "sobol", "nsga2", "tpe")]
WANTED = [dse.Objective("time", transform="log"), dse.Objective("loss", minimize=False)]
LIMIT = [dse.OutcomeConstraint("heat", at_most=0.8)]
BATCHES = 6


def numbers(parameters):
    """Three numbers in (0, 1) that follow from the design."""
    return np.random.default_rng(zlib.crc32(repr(sorted(parameters.items())).encode())).random(3)


def settle(campaign, trial):
    """End a trial in a way that follows from its design: most are measured."""
    time, loss, heat = numbers(trial.parameters)
    if loss < 0.15:
        campaign.fail(trial, "does not fit")
    else:
        if loss < 0.25:
            campaign.fail(trial, "no licence", kind="infrastructure")
            assert [again.id for again in campaign.ask(1)] == [trial.id]
        campaign.tell(
            trial, {"time": float(time), "loss": float(loss), "heat": float(heat)}, seconds=1 + time
        )


def course(space, method, seed, sizes, store=None, *, reopen=False):
    """Proposals of a campaign, batch by batch; the last trial of every batch ends one batch later.

    With `reopen` the campaign is closed and opened from its file before every batch.
    """

    def opened():
        return dse.Campaign(
            space, WANTED, outcome_constraints=LIMIT, seed=seed, method=method, initial=4, store=store
        )

    campaign, proposals, behind = opened(), [], []
    for size in sizes:
        if reopen:
            campaign.close()
            campaign = opened()
            # What was under way comes first; here it is still being evaluated elsewhere.
            again = campaign.ask(len(behind)) if behind else []
            assert [trial.id for trial in again] == [trial.id for trial in behind]
            behind = again
        new = campaign.ask(size)
        proposals.append([(trial.id, trial.parameters) for trial in new])
        under_way, behind = [*behind, *new[:-1]], new[-1:]
        for trial in under_way:
            settle(campaign, trial)
    campaign.close()
    return proposals, campaign


def check(space, method, seed, sizes):
    proposals, campaign = course(space, method, seed, sizes)
    designs = [space.design(trial.parameters) for trial in campaign.trials]
    assert len(set(designs)) == len(designs)
    assert all(is_legal(space, design) for design in designs)
    assert course(space, method, seed, sizes)[0] == proposals
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "campaign.sqlite")
        assert course(space, method, seed, sizes, path, reopen=True)[0] == proposals


sizes = st.lists(st.integers(1, 3), min_size=BATCHES, max_size=BATCHES)


@pytest.mark.parametrize("method", ["random", "sobol", "nsga2", "tpe"])
@settings(max_examples=8)
@given(space=spaces(kinds=KINDS), seed=st.integers(0, 99), sizes=sizes)
def test_proposals_never_repeat_are_feasible_and_follow_from_seed_and_history(method, space, seed, sizes):
    check(space, method, seed, sizes)


@pytest.mark.parametrize("method", LEARNING)
@settings(max_examples=2)
@given(space=spaces(kinds=KINDS), seed=st.integers(0, 99), sizes=sizes)
def test_so_do_those_of_methods_that_learn(method, space, seed, sizes):
    check(space, method, seed, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(space=spaces(kinds=KINDS), seed=st.integers(0, 99), sizes=sizes)
def test_so_do_those_of_all_methods_on_many_spaces(method, space, seed, sizes):
    check(space, method, seed, sizes)


@pytest.mark.parametrize("method", LEARNING)
def test_pending_designs_and_batches_have_no_duplicates(method):
    # BoTorch issue 2983: with pending points and greedy batches, hypervolume acquisitions returned one
    # point several times. Designs of a smooth bowl, all good ones of which lie close together.
    space = dse.Space([dse.Ordinal("x", range(30)), dse.Ordinal("y", range(30))])
    wanted = [dse.Objective("a"), dse.Objective("b")]
    campaign = dse.Campaign(space, wanted, seed=0, method=method, initial=6)

    def tell(trial):
        x, y = trial.parameters["x"], trial.parameters["y"]
        campaign.tell(trial, {"a": (x - 15) ** 2 + (y - 15) ** 2, "b": (x - 16) ** 2 + (y - 15) ** 2})

    for trial in campaign.ask(8):
        tell(trial)
    workers = campaign.ask(4)
    for _ in range(3):  # the oldest of four workers is free again, three are pending
        tell(workers.pop(0))
        workers += campaign.ask(1)
    workers += campaign.ask(4)
    designs = [space.design(trial.parameters) for trial in campaign.trials]
    assert len(set(designs)) == len(designs) == 19
    assert len(workers) == 8


@pytest.mark.parametrize(
    ("objectives", "chosen", "other"),
    [
        (3, "qlognehvi", "qlognparego"),
        (4, "qlognparego", "sobol"),
    ],
)
def test_auto_is_qlognehvi_up_to_three_objectives_and_qlognparego_from_four_on(objectives, chosen, other):
    space = dse.Space([dse.Ordinal(name, range(6)) for name in "abcd"])
    wanted = [dse.Objective(f"f{i}") for i in range(objectives)]

    def evaluate(p):
        x = np.array([p[name] for name in "abcd"]) / 5
        return {
            f"f{i}": float(((x - np.roll([0.9, 0.1, 0.4, 0.6], i)) ** 2).sum()) for i in range(objectives)
        }

    def proposals(method):
        campaign = dse.Campaign(space, wanted, seed=1, method=method, initial=6)
        campaign.run(evaluate, budget=10)
        return [trial.parameters for trial in campaign.trials]

    assert proposals("auto") == proposals(chosen)
    assert proposals("auto")[6:] != proposals(other)[6:]
