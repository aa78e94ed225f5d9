"""Search that chooses how exactly to evaluate: what it never does, and what it saves."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.methods import bayesian

EPOCHS = dse.Fidelity("epochs", (1, 4, 16))
TWO = dse.Fidelity("epochs", (2, 16))


def small():
    return dse.Space(
        [dse.Ordinal("x", range(4)), dse.Categorical("flow", ("a", "b"))],
        constraints=[lambda p: "no" if p == {"x": 1, "flow": "b"} else None],
    )


WANTED = {
    "learnt": dse.Objective("loss"),
    "known": dse.Objective("area", known=lambda p: p["x"]),
    "more": dse.Objective("time", minimize=False, inputs=("x",), features=lambda p: {"root": p["x"] ** 0.5}),
}


def answer(c, trial):
    """Deterministic values that look random; some designs fail, whatever the level."""
    rng = np.random.default_rng(list(repr(trial.parameters).encode()))
    if rng.random() < 0.2:
        c.fail(trial, "broken")
        return
    values = {name: rng.normal() + 1 / trial.fidelity for name in ("loss", "time", "heat")}
    told = {"heat"} | {o.name for o in c.objectives if o.known is None}
    c.tell(trial, {name: value for name, value in values.items() if name in told})


def exhaust(names, method, batch, seed):
    c = dse.Campaign(
        small(),
        [WANTED[name] for name in names],
        seed=seed,
        method=method,
        initial=3,
        fidelity=EPOCHS,
        outcome_constraints=[dse.OutcomeConstraint("heat", at_most=0.8)],
    )
    highest = {}
    while asked := c.ask(batch):
        for trial in asked:
            design = c.space.design(trial.parameters)
            assert c.space.is_feasible(design)
            assert trial.fidelity > highest.get(design, 0), "never the same pair, and never a lower level"
            highest[design] = trial.fidelity
        for trial in asked[:-1] or asked:  # the last of a batch stays pending
            answer(c, trial)
    failed = {c.space.design(t.parameters) for t in c.trials if t.state == "failed"}
    assert set(highest) == set(c.space.designs())
    assert all(level == 16 for design, level in highest.items() if design not in failed)


@settings(max_examples=3)
@given(
    names=st.sampled_from(
        [("learnt",), ("known", "learnt"), ("learnt", "more"), ("known", "learnt", "more")]
    ),
    method=st.sampled_from(["qlognehvi", "qlognparego"]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_design_is_evaluated_fully_in_the_end_and_no_pair_twice(names, method, batch, seed):
    exhaust(names, method, batch, seed)


def test_the_same_holds_where_the_space_is_too_large_to_list():
    with mock.patch.multiple(bayesian, _ENUMERATED=0, _ENUMERATED_KNOWN=0, _POOL=3):
        exhaust(("known", "learnt"), "auto", 2, 1)


def valley(p):
    x, y = p["x"] / 19, p["y"] / 19
    return (x - 0.62) ** 2 + 0.5 * (y - 0.23) ** 2 + 0.15 * np.sin(9.0 * x) * np.cos(5.0 * y)


CHEAP = {
    "close": lambda p: 1.1 * valley(p) + 0.1 + 0.1 * p["x"] / 19,
    "against": lambda p: 1.0 - valley(p),
    "noise": lambda p: np.random.default_rng([p["x"], p["y"]]).normal(),
}


def spent_until_found(cheap, seed, most=40):
    """Full evaluations' worth until a design within 2 % of the range of the best is evaluated fully."""
    space = dse.Space([dse.Ordinal("x", range(20)), dse.Ordinal("y", range(20))])
    every = np.array([valley(space.parameters_of(design)) for design in space.designs()])
    goal = every.min() + 0.02 * np.ptp(every)
    fidelity = None if cheap is None else TWO
    c = dse.Campaign(space, [dse.Objective("loss")], seed=seed, fidelity=fidelity)
    while c.spent < most:
        (trial,) = c.ask()
        value = valley(trial.parameters) if trial.fidelity in (None, 16) else CHEAP[cheap](trial.parameters)
        c.tell(trial, {"loss": value})
        if trial.price == 1.0 and value <= goal:
            break
    return c.spent, c


def branin(p):
    x, y = 15 * p["x"] / 23 - 5, 15 * p["y"] / 23
    inner = y - 5.1 * x**2 / (4 * np.pi**2) + 5 * x / np.pi - 6
    return inner**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


def cost_of_branin(seed, cheap, most=24):
    """Full evaluations' worth until one of the two best designs of three minima, or `most`."""
    space = dse.Space([dse.Ordinal("x", range(24)), dse.Ordinal("y", range(24))])
    goal = sorted(branin(space.parameters_of(design)) for design in space.designs())[1]
    wanted = [dse.Objective("loss", transform="log")]
    c = dse.Campaign(space, wanted, seed=seed, fidelity=TWO if cheap else None)
    while c.spent < most:
        (trial,) = c.ask()
        value = branin(trial.parameters)
        if trial.fidelity in (None, 16):
            c.tell(trial, {"loss": value})
            if value <= goal:
                break
        else:  # on another scale, and tilted
            c.tell(trial, {"loss": 3.0 * value * np.exp(0.03 * trial.parameters["y"]) + 1.5})
    return c.spent


def test_cheap_evaluations_that_follow_the_full_ones_save_much_of_the_cost():
    plain = [cost_of_branin(seed, cheap=False) for seed in range(3)]
    helped = [cost_of_branin(seed, cheap=True) for seed in range(3)]
    assert np.median(helped) < 0.7 * np.median(plain)


@pytest.mark.parametrize("cheap", ["against", "noise"])
def test_misleading_cheap_evaluations_cost_at_most_twice_the_plain_search(cheap):
    plain = [spent_until_found(None, seed)[0] for seed in range(3)]
    found = [spent_until_found(cheap, seed) for seed in range(3)]
    assert np.median([spent for spent, _ in found]) <= 2 * np.median(plain)
    for _, c in found:
        assert c.trials[-1].fidelity == 16
        cheap_ones = sum(t.price for t in c.trials if t.price < 1)
        beginning = 6 * TWO.price(2)
        assert cheap_ones <= c.spent - cheap_ones + beginning + 1e-9


def test_the_note_says_that_cheap_evaluations_mislead():
    _, c = spent_until_found("against", 0, most=12)
    assert any("below the full one tell nothing of loss" in text for _, text in c.notes)
    _, c = spent_until_found("close", 0, most=6)
    assert not any("below the full one tell nothing of loss" in text for _, text in c.notes)


def test_the_beginning_is_cheap_but_for_some_full_evaluations():
    c = dse.Campaign(small(), [WANTED["known"], WANTED["learnt"]], seed=0, initial=5, fidelity=EPOCHS)
    levels = []
    for _ in range(9):
        (trial,) = c.ask()
        levels.append(trial.fidelity)
        c.tell(trial, {"loss": trial.parameters["x"] + 1 / trial.fidelity})
    assert levels[:8] == [1] * 5 + [16] * 3
    dear = dse.Fidelity("epochs", (1, 4, 16), prices=(6, 7, 10))
    c = dse.Campaign(small(), [WANTED["known"], WANTED["learnt"]], seed=0, initial=5, fidelity=dear)
    assert [trial.fidelity for trial in c.ask(5)] == [16] * 5


def test_attached_full_evaluations_count_towards_the_beginning():
    c = dse.Campaign(small(), [WANTED["learnt"]], seed=0, initial=4, fidelity=EPOCHS)
    c.attach(pd.DataFrame({"x": [0, 1, 2, 3], "flow": ["a"] * 4, "loss": [3.0, 1.0, 2.0, 5.0]}))
    (trial,) = c.ask()
    assert c.notes == ()
    assert trial.fidelity == 1  # costs a sixteenth, and is allowed since four full ones are there


def test_measured_seconds_tell_that_a_low_level_is_not_cheap():
    c = dse.Campaign(small(), [WANTED["learnt"]], seed=0, initial=3, fidelity=EPOCHS)
    for _ in range(8):
        (trial,) = c.ask()
        c.tell(trial, {"loss": trial.parameters["x"] + 1 / trial.fidelity}, seconds=10.0)
    # Known from the first full evaluation on.
    first = next(k for k, trial in enumerate(c.trials) if trial.fidelity == 16)
    assert {trial.fidelity for trial in c.trials[first:]} == {16}
