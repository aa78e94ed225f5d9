import itertools
import math

import numpy as np
import pandas as pd
import pytest

import dse
from dse.fidelity import affordable
from dse.store import read_store

EPOCHS = dse.Fidelity("epochs", (1, 4, 16))


def space():
    return dse.Space([dse.Ordinal("x", range(8)), dse.Categorical("flow", ("a", "b"))])


def objectives():
    return [dse.Objective("area", known=lambda p: p["x"] ** 2), dse.Objective("loss")]


def campaign(**options):
    return dse.Campaign(space(), objectives(), **{"seed": 0, "fidelity": EPOCHS, "initial": 5, **options})


def evaluate(p):
    return {"loss": 10.0 - p["x"] + (p["flow"] == "b") + 3 / p["epochs"]}


def attached(levels, **columns):
    """One design at several levels."""
    n = len(levels)
    return pd.DataFrame({"x": [3] * n, "flow": ["a"] * n, "loss": [8.0] * n, "epochs": levels, **columns})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("", (1, 2)), {}, "name of a fidelity must be a non-empty text, got ''"),
        (("e", (1,)), {}, r"levels of e must be at least 2, got \(1,\)"),
        (("e", (4, 1)), {}, r"levels of e must increase, got \(4, 1\)"),
        (("e", (1, 1)), {}, r"levels of e must increase, got \(1, 1\)"),
        (("e", (1, math.nan)), {}, "level of e must be a finite number, got nan"),
        (("e", ("low", "high")), {}, "level of e must be a finite number, got 'low'"),
        (("e", "12"), {}, "must be lists of numbers, got '12'"),
        (("e", (0, 1)), {}, "levels of e without prices must be positive, got 0"),
        (("e", (0, 1)), {"prices": (1,)}, "must be one per level, got 1 for 2 levels"),
        (("e", (0, 1)), {"prices": (0, 1)}, "prices of e must be positive, got 0.0"),
    ],
)
def test_a_bad_fidelity_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        dse.Fidelity(*arguments, **options)


def test_prices_are_shares_of_a_full_evaluation_and_positions_follow_the_logarithm():
    assert [EPOCHS.price(level) for level in EPOCHS.levels] == [1 / 16, 1 / 4, 1.0]
    assert [EPOCHS.position(level) for level in EPOCHS.levels] == pytest.approx([0.0, 0.5, 1.0])
    stated = dse.Fidelity("effort", (0, 1, 4), prices=(2, 5, 10))
    assert [stated.price(level) for level in stated.levels] == [0.2, 0.5, 1.0]
    assert [stated.position(level) for level in stated.levels] == [0.0, 0.25, 1.0]
    assert dse.Fidelity.of(stated.describe()) == stated
    assert [affordable(left) for left in (-1.0, 0.99, 3 - 3 * 0.1 - 0.7, 2.5)] == [0, 0, 2, 2]


def test_measured_seconds_replace_proportional_prices_but_not_stated_ones():
    levels, seconds = (1, 1, 1, 16, 16, 4), np.array([3.0, 5.0, np.nan, 10.0, 30.0, np.nan])
    assert EPOCHS.measured_prices(levels, seconds) == {1: 0.2, 4: 0.25, 16: 1.0}
    # Of a level without a time it is known that it costs no less than a lower one.
    assert EPOCHS.measured_prices(levels[:5], 4 * seconds[:5] + 8) == {1: 3 / 11, 4: 3 / 11, 16: 1.0}
    # Faster than a tenth of a second, times say nothing.
    assert EPOCHS.measured_prices(levels, seconds / 1000) == {1: 1 / 16, 4: 0.25, 16: 1.0}
    stated = dse.Fidelity("epochs", (1, 4, 16), prices=(1, 2, 4))
    assert stated.measured_prices(levels, seconds) == {1: 0.25, 4: 0.5, 16: 1.0}


@pytest.mark.parametrize(
    ("name", "wanted", "limits"),
    [
        ("x", objectives(), ()),
        ("loss", objectives(), ()),
        ("heat", objectives(), [dse.OutcomeConstraint("heat", at_most=1)]),
    ],
)
def test_a_name_that_is_taken_is_refused(name, wanted, limits):
    with pytest.raises(ValueError, match=f"no parameter's and no outcome's, got '{name}'"):
        dse.Campaign(space(), wanted, seed=0, outcome_constraints=limits, fidelity=dse.Fidelity(name, (1, 2)))


def test_the_evaluator_receives_the_level_beside_the_parameters_and_the_frame_has_it():
    c, seen = campaign(), []
    c.run(lambda p: seen.append(p) or evaluate(p), budget=6)
    assert [p["epochs"] for p in seen] == [trial.fidelity for trial in c.trials]
    assert [{n: v for n, v in p.items() if n != "epochs"} for p in seen] == [t.parameters for t in c.trials]
    assert list(c.frame().columns)[:5] == ["id", "state", "x", "flow", "epochs"]
    assert c.frame()["epochs"].tolist() == [trial.fidelity for trial in c.trials]
    assert set(c.frame()["epochs"]) > {1, 16}


def test_a_budget_is_of_full_evaluations_and_is_not_exceeded():
    c, events = campaign(), []
    c.run(evaluate, budget=5, on_event=events.append)
    assert c.spent == pytest.approx(sum(trial.price for trial in c.trials))
    assert 4 < c.spent <= 5 < c.finished
    assert events[-1].finished == c.finished
    assert events[-1].spent == c.spent
    c.run(evaluate, budget=7)
    assert 6 < c.spent <= 7


def test_without_a_fidelity_all_is_as_it_was():
    c = campaign(fidelity=None, method="sobol")
    c.run(lambda p: evaluate({**p, "epochs": 16}), budget=4)
    assert c.spent == c.finished == 4
    assert [(t.fidelity, t.price) for t in c.trials] == [(None, 1.0)] * 4
    assert "epochs" not in c.frame().columns
    assert c.history().highest == {}


def test_front_hypervolume_and_prediction_are_of_full_evaluations_alone():
    c = campaign()
    c.run(lambda p: {"loss": evaluate(p)["loss"] - 100 * (p["epochs"] < 16)}, budget=6)
    full = [t for t in c.trials if t.fidelity == 16]
    assert c.pareto()["epochs"].unique().tolist() == [16]
    alone = campaign(fidelity=None)
    alone.attach(pd.DataFrame([{**t.parameters, "loss": t.values["loss"]} for t in full]))
    reference = {"area": 60.0, "loss": 20.0}
    assert c.hypervolume(reference) == alone.hypervolume(reference) > 0
    where = pd.DataFrame({"x": [0, 7], "flow": ["a", "b"]})
    np.testing.assert_array_equal(c.predict(where), alone.predict(where))


def test_a_campaign_transfers_its_full_evaluations_alone():
    from dse.transfer import Source

    c = campaign()
    c.run(evaluate, budget=5)
    assert Source.of(c).frame["epochs"].unique().tolist() == [16]


@pytest.mark.parametrize("method", ["random", "sobol", "nsga2", "tpe", "predict"])
def test_methods_that_choose_no_fidelity_make_full_evaluations_and_say_so_once(method):
    c = campaign(method=method)
    c.attach(attached([1]))
    c.run(evaluate, budget=9)
    assert [t.fidelity for t in c.trials] == [1] + [16] * 9
    assert [text for _, text in c.notes if "does not choose fidelities" in text] == [
        f"{method} does not choose fidelities: every design is evaluated at epochs 16"
    ]


def test_attached_rows_have_their_level_and_without_one_are_full():
    c = campaign()
    c.attach(attached([1, np.nan]))
    c.attach(attached([4]).assign(x=5))
    c.attach(attached([4]).drop(columns="epochs").assign(x=6))
    assert [t.fidelity for t in c.trials] == [1, 16, 4, 16]
    assert c.spent == 0
    assert c.frame()["epochs"].tolist() == [1, 16, 4, 16]
    with pytest.raises(
        ValueError, match=r"row 0 of the table to attach: epochs must be one of 1, 4, 16, got 2"
    ):
        c.attach(attached([2]))
    with pytest.raises(ValueError, match=r"designs must be attached once, got .*'x': 5"):
        c.attach(attached([4]).assign(x=5))
    # A frame comes back as it went.
    again = campaign()
    again.attach(c.frame())
    assert [(t.parameters, t.fidelity) for t in again.trials] == [
        (t.parameters, t.fidelity) for t in c.trials
    ]


def test_a_metric_may_not_be_called_as_the_fidelity():
    c = campaign()
    (trial,) = c.ask()
    with pytest.raises(ValueError, match="name of its own as text, got 'epochs'"):
        c.tell(trial, {"loss": 1.0}, metrics={"epochs": 1})


def history(c):
    return [(t.id, str(t.state), t.parameters, t.fidelity, t.values) for t in c.trials]


def test_a_resumed_campaign_has_the_history_of_one_that_was_not_interrupted(tmp_path):
    straight = campaign()
    straight.run(evaluate, budget=7)
    path = tmp_path / "campaign.sqlite"
    calls = itertools.count()

    def interrupted(p):
        if next(calls) in (3, 8, 12, 20):
            raise KeyboardInterrupt
        return evaluate(p)

    for _ in range(5):
        with campaign(store=path) as resumed:
            try:
                resumed.run(interrupted, budget=7)
            except KeyboardInterrupt:
                continue
            break
    assert history(resumed) == history(straight)
    asked = [record.payload["fidelity"] for record in read_store(path)[1] if record.kind == "ask"]
    assert set(asked) > {1, 16}
    with dse.Campaign.resume(path, space(), objectives()) as again:
        assert again.fidelity == EPOCHS
        assert history(again) == history(straight)


@pytest.mark.parametrize("other", [None, dse.Fidelity("epochs", (1, 16))])
def test_a_store_of_another_fidelity_is_refused(tmp_path, other):
    campaign(store=tmp_path / "c.sqlite").close()
    with pytest.raises(dse.StoreMismatch, match="fidelity"):
        campaign(store=tmp_path / "c.sqlite", fidelity=other)
    campaign(store=tmp_path / "d.sqlite", fidelity=None).close()
    with pytest.raises(dse.StoreMismatch, match="fidelity: None in the store"):
        campaign(store=tmp_path / "d.sqlite")


def test_a_lost_trial_is_asked_again_at_its_level(tmp_path):
    with campaign(store=tmp_path / "c.sqlite") as c:
        (trial,) = c.ask()
        c.fail(trial, "no licence", kind="infrastructure")
        (again,) = c.ask()
        assert (again.id, again.fidelity) == (0, 1)
    with campaign(store=tmp_path / "c.sqlite") as c:
        assert c.ask()[0].fidelity == 1
