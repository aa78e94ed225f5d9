"""Campaigns over tables, rows measured elsewhere, limits on outcomes, and predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import dse


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = [(u, v, flow) for u in (1, 2, 4, 8, 16) for v in range(6) for flow in ("a", "b")]
    frame = pd.DataFrame(rows, columns=["unroll", "width", "flow"]).sample(frac=1, random_state=1)
    frame["time"] = 100.0 / frame["unroll"] + 3.0 * frame["width"] + 5.0 * (frame["flow"] == "b")
    frame["area"] = 10.0 * frame["unroll"] + frame["width"] + rng.random(len(frame))
    return frame.reset_index(drop=True)


def over(table, names=("time", "area"), **options):
    space = dse.Space.from_table(table, ["unroll", "width", "flow"])
    wanted = [dse.Objective(name) for name in names]
    return dse.Campaign(space, wanted, **{"seed": 0, **options})


def measure(campaign, table, trial):
    campaign.tell(trial, {o.name: table[o.name][trial.row] for o in campaign.objectives})


@pytest.mark.parametrize("method", ["auto", "random", "nsga2", "predict"])
def test_a_table_is_searched_row_by_row(table, method):
    campaign = over(table, method=method, initial=5)
    while asked := campaign.ask(7):
        for trial in asked:
            assert trial.parameters == table.loc[trial.row, ["unroll", "width", "flow"]].to_dict()
            measure(campaign, table, trial)
    assert sorted(trial.row for trial in campaign.trials) == list(range(len(table)))
    front = campaign.pareto()
    costs = table[["time", "area"]].to_numpy()
    best = costs[dse.non_dominated(costs)]
    np.testing.assert_allclose(front[["time", "area"]].to_numpy(), best[np.argsort(best[:, 0])])


def test_given_rows_inform_the_search_and_cost_no_budget(table, tmp_path):
    given = table.iloc[[3, 1, 4, 15, 9, 26, 5, 35]]
    with over(table, store=tmp_path / "c.sqlite") as campaign:
        attached = campaign.attach(given)
        assert [trial.row for trial in attached] == [3, 1, 4, 15, 9, 26, 5, 35]
        assert {str(trial.state) for trial in attached} == {"done"}
        assert campaign.finished == 0
        by_row = {tuple(row[:3]): {"time": row[3], "area": row[4]} for row in table.to_numpy().tolist()}
        campaign.run(lambda p: by_row[tuple(p.values())], budget=4)
        history = campaign.frame()
    assert len(history) == 12
    assert not set(history["id"].iloc[8:]) & set(range(8))
    assert history.iloc[8:][["unroll", "width", "flow"]].merge(given).empty
    resumed = dse.Campaign.resume(tmp_path / "c.sqlite", campaign.space, campaign.objectives)
    with resumed:
        pd.testing.assert_frame_equal(resumed.frame(), history)
        assert resumed.ask()[0].id == 12


def test_a_campaigns_table_can_be_attached_to_another(table):
    first = over(table, method="random")
    for trial in first.ask(6):
        measure(first, table, trial)
    first.fail(first.ask()[0], "does not fit")
    first.ask()
    second = over(table, method="random", seed=1)
    second.attach(first.frame())
    assert [str(trial.state) for trial in second.trials] == ["done"] * 6 + ["failed"]
    assert second.trials[6].error == "does not fit"
    assert second.history().failed == first.history().failed


def broken(table, **changes):
    return table.iloc[:3].assign(**changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="area"), "must have the column area, got unroll, width, flow, time"),
        (lambda t: t.drop(columns="flow"), "must have the column flow"),
        (
            lambda t: broken(t, time=[1.0, np.nan, 2.0]),
            "row 1 of the table to attach: time must be finite, got nan",
        ),
        (lambda t: broken(t, time=[1.0, 2.0, "fast"]), "row 2 of the table to attach: time must be a number"),
        (lambda t: broken(t, unroll=[1, 3, 2]), "row 1 of the table to attach: unroll must be one of"),
        (
            lambda t: broken(t, state="happy"),
            "row 0 of the table to attach: state must be one of .*, got 'happy'",
        ),
        (
            lambda t: pd.concat([t.iloc[:2], t.iloc[:1]]),
            "must be attached once, got .* again .trial 0.",
        ),
    ],
)
def test_a_bad_row_is_named_and_none_is_attached(table, spoil, message):
    campaign = over(table)
    with pytest.raises(ValueError, match=message):
        campaign.attach(spoil(table))
    assert campaign.trials == ()
    with pytest.raises(TypeError, match="must be a pandas DataFrame, got dict"):
        campaign.attach({})


def test_a_limit_makes_designs_infeasible(table):
    space = dse.Space.from_table(table, ["unroll", "width", "flow"])
    limits = [dse.OutcomeConstraint("area", at_most=90.0), dse.OutcomeConstraint("power", at_least=2.0)]
    campaign = dse.Campaign(
        space,
        [dse.Objective("time"), dse.Objective("area")],
        seed=0,
        outcome_constraints=limits,
        method="sobol",
    )
    for trial in campaign.ask(20):
        row = table.loc[trial.row]
        campaign.tell(trial, {"time": row["time"], "area": row["area"], "power": row["width"]})
        met = row["area"] <= 90 and row["width"] >= 2
        assert trial.state == ("done" if met else "infeasible")
    history = campaign.history()
    assert history.constraints.shape == (20, 2)
    assert history.feasible.sum() == sum(trial.state == "done" for trial in campaign.trials)
    assert set(campaign.frame().columns) >= {"power", "time", "area"}
    assert campaign.pareto()["area"].max() <= 90
    with pytest.raises(ValueError, match="constraint power is missing"):
        campaign.tell(campaign.ask()[0], {"time": 1.0, "area": 1.0})


def test_a_model_keeps_to_the_limits(table):
    space = dse.Space.from_table(table, ["unroll", "width", "flow"])
    limits = [dse.OutcomeConstraint("width_used", at_least=4.0)]
    campaign = dse.Campaign(space, [dse.Objective("time")], seed=0, outcome_constraints=limits, initial=6)
    for _ in range(18):
        (trial,) = campaign.ask()
        row = table.loc[trial.row]
        campaign.tell(trial, {"time": row["time"], "width_used": float(row["width"])})
    best = table[table["width"] >= 4]["time"].min()
    assert campaign.pareto()["time"].iloc[0] == best


def test_predictions_come_in_the_units_that_are_told(table):
    campaign = over(table, ["time"], method="predict", initial=6)
    for _ in range(24):
        (trial,) = campaign.ask()
        measure(campaign, table, trial)
    mean, deviation = campaign.predict(table)
    assert mean.shape == deviation.shape == (len(table),)
    assert (deviation > 0).all()
    truth = table["time"].to_numpy()
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.2 * truth.std()
    assert any("models:" in line for line in campaign.prediction_report)


def test_several_objectives_are_predicted_in_their_order(table):
    campaign = over(table, method="random")
    for trial in campaign.ask(25):
        measure(campaign, table, trial)
    mean, _ = campaign.predict(table.iloc[:9])
    assert mean.shape == (9, 2)
    truth = table[["time", "area"]].to_numpy()[:9]
    assert np.corrcoef(mean[:, 0], truth[:, 0])[0, 1] > 0.8
    assert np.corrcoef(mean[:, 1], truth[:, 1])[0, 1] > 0.8


def test_what_cannot_be_predicted_is_told(table):
    campaign = over(table, ["time"])
    with pytest.raises(dse.PredictionError, match="a model of time needs 5 results, got 0"):
        campaign.predict(table)
    with pytest.raises(ValueError, match="row 0: unroll must be one of"):
        campaign.predict(table.assign(unroll=3))


def test_values_whose_squares_overflow_are_refused_by_the_model_and_searched_without(table):
    huge = table.assign(time=1e300 * (1 + table["width"]))
    campaign = over(huge, ["time"], method="predict", initial=5)
    for _ in range(7):
        measure(campaign, huge, campaign.ask()[0])
    assert campaign.notes[-1][1].startswith("Sobol design: costs of time must be at most 1e+150")
    with pytest.raises(dse.PredictionError, match="transform='log' has no such limit"):
        campaign.predict(huge)


def test_a_budget_of_the_campaign_is_that_of_its_run(table):
    by_row = {tuple(row[:3]): {"time": row[3]} for row in table.to_numpy().tolist()}
    campaign = over(table, ["time"], budget=3, method="random")
    campaign.run(lambda p: by_row[tuple(p.values())])
    assert campaign.finished == 3
    with pytest.raises(ValueError, match="budget must be a number of trials"):
        over(table, ["time"]).run(lambda p: {"time": 1.0})
    with pytest.raises(ValueError, match="budget must be at least 0, got -1"):
        over(table, ["time"], budget=-1)


def test_names_of_a_campaigns_own_columns_are_free(table):
    table = table.rename(columns={"time": "error", "width": "id"})
    space = dse.Space.from_table(table, ["unroll", "id", "flow"])
    campaign = dse.Campaign(space, [dse.Objective("error")], seed=0, method="random")
    for trial in campaign.ask(4):
        measure(campaign, table, trial)
    campaign.fail(campaign.ask()[0], "broken")
    frame = campaign.frame()
    assert list(frame.columns) == [
        "trial_id",
        "state",
        "unroll",
        "id",
        "flow",
        "error",
        "seconds",
        "trial_error",
    ]
    assert frame["trial_error"].iloc[4] == "broken"
    assert frame["error"].iloc[:4].tolist() == [table["error"][t.row] for t in campaign.trials[:4]]
    again = dse.Campaign(space, [dse.Objective("error")], seed=0)
    again.attach(frame)
    assert again.trials[4].error == "broken"
    assert campaign.pareto()["error"].iloc[0] == frame["error"].min()


def test_a_cost_aware_search_prefers_what_is_cheap_to_evaluate(table):
    """Designs of flow b take 100 times as long as those of flow a, and are as good otherwise."""
    alike = table.assign(time=table["time"] - 5.0 * (table["flow"] == "b"))
    seconds = {}
    for cost_aware in (False, True):
        campaign = over(alike, ["time"], initial=8, cost_aware=cost_aware)
        for _ in range(20):
            (trial,) = campaign.ask()
            spent = 100.0 if trial.parameters["flow"] == "b" else 1.0
            campaign.tell(trial, {"time": alike["time"][trial.row]}, seconds=spent)
        seconds[cost_aware] = sum(trial.seconds for trial in campaign.trials[8:])
        assert campaign.pareto()["time"].iloc[0] == alike["time"].min()
    assert seconds[True] < seconds[False]
