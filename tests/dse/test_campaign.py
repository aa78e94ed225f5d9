import math

import numpy as np
import pandas as pd
import pytest

import dse


def space(**options):
    return dse.Space([dse.Ordinal("x", range(8)), dse.Categorical("flow", ("a", "b"))], **options)


def objectives():
    return [dse.Objective("area", known=lambda p: p["x"] ** 2), dse.Objective("loss")]


def campaign(**options):
    return dse.Campaign(space(), objectives(), **{"seed": 0, "method": "sobol", **options})


def evaluate(p):
    return {"loss": 10.0 - p["x"] + (p["flow"] == "b")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be an integer in 0..2\\*\\*63 - 1, got -1"),
        ({"seed": True}, "seed must be an integer.*got True"),
        ({"method": "genetic"}, "method must be one of random, sobol, .*, auto, got 'genetic'"),
        ({"initial": 0}, "initial must be at least 1, got 0"),
        ({"config": {"a": math.nan}}, "config must be JSON"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        campaign(**options)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "at least one objective, got none"),
        ([dse.Objective("loss"), dse.Objective("loss")], "distinct.*got 'loss'"),
        ([dse.Objective("x")], "no parameter's.*got 'x'"),
        ([dse.Objective("loss", inputs=("x", "z"))], "inputs of loss must be among x, flow, got 'z'"),
    ],
)
def test_bad_objectives_are_named(wanted, message):
    with pytest.raises(ValueError, match=message):
        dse.Campaign(space(), wanted, seed=0)


def test_telling_updates_the_trial_and_computes_the_known_objective():
    c = campaign()
    (trial,) = c.ask()
    assert (trial.id, trial.state, trial.values) == (0, "pending", {})
    c.start(trial)
    assert trial.state == "running"
    c.tell(trial, {"loss": np.float64(0.25)}, metrics={"bytes": 3}, seconds=1.5)
    assert trial.state == "done"
    assert trial.values == {"area": trial.parameters["x"] ** 2, "loss": 0.25}
    assert (trial.metrics, trial.seconds, trial.error) == ({"bytes": 3}, 1.5, None)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {}, "objective loss is missing"),
        ({"loss": math.nan}, {}, "loss must be finite, got nan"),
        ({"loss": math.inf}, {}, "loss must be finite, got inf"),
        ({"loss": 1, "speed": 2}, {}, "'speed' is not an objective"),
        ({"loss": 1, "area": 2}, {}, "'area' is known, hence computed"),
        ({"loss": 1}, {"metrics": {"a": math.nan}}, "metric a must be JSON"),
        ({"loss": 1}, {"metrics": {"a": object()}}, "metric a must be JSON"),
        ({"loss": 1}, {"metrics": {"x": 1}}, "name of its own as text, got 'x'"),
        ({"loss": 1}, {"seconds": -1.0}, "seconds must be finite and at least 0, got -1.0"),
    ],
)
def test_a_bad_result_is_named_and_leaves_the_trial_open(values, options, message):
    c = campaign()
    (trial,) = c.ask()
    with pytest.raises(ValueError, match=message):
        c.tell(trial, values, **options)
    assert trial.state == "pending"
    c.tell(trial, {"loss": 1})


def test_a_trial_is_told_once_and_only_to_its_campaign():
    c, other = campaign(), campaign()
    (trial,), (foreign,) = c.ask(), other.ask()
    c.tell(trial, {"loss": 1})
    with pytest.raises(ValueError, match="trial 0 must be pending or running, got done"):
        c.tell(trial, {"loss": 2})
    with pytest.raises(ValueError, match="trial 0 must come from this campaign"):
        c.fail(foreign, "what?")


def test_a_failed_design_is_remembered_and_counts():
    c = campaign()
    (trial,) = c.ask()
    c.fail(trial, "does not fit")
    assert (trial.state, trial.error, c.finished) == ("failed", "does not fit", 1)
    rest = c.ask(100)
    assert len(rest) == 15
    assert trial.parameters not in [t.parameters for t in rest]
    assert c.pareto().empty


def test_an_infrastructure_failure_is_retried_three_times_and_then_abandoned():
    c = campaign()
    (first,) = c.ask()
    for attempt in (1, 2, 3):
        c.fail(first, "no licence", kind="infrastructure")
        assert (first.state, first.attempts) == ("lost", attempt)
        assert c.ask() == [first]
    c.fail(first, "no licence", kind="infrastructure")
    assert (first.state, first.attempts, c.finished) == ("abandoned", 4, 0)
    (second,) = c.ask()
    assert second.id == 1
    assert second.parameters != first.parameters


def test_attempts_survive_a_resume(tmp_path):
    with campaign(store=tmp_path / "c.sqlite") as c:
        (trial,) = c.ask()
        c.fail(trial, "no licence", kind="infrastructure")
        c.ask()
        c.fail(trial, "no licence", kind="infrastructure")
    with campaign(store=tmp_path / "c.sqlite") as c:
        assert c.trials[0].attempts == 2
        assert c.ask()[0].id == 0


def test_asking_returns_fewer_and_then_nothing_when_the_space_is_exhausted():
    c = campaign()
    assert len(c.ask(10)) == 10
    assert len(c.ask(10)) == 6
    assert c.ask(10) == []
    assert len({tuple(t.parameters.values()) for t in c.trials}) == 16
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        c.ask(0)


def test_a_run_records_the_evaluators_errors_and_goes_on(tmp_path):
    def evaluator(p):
        if p["x"] == 2:
            raise ZeroDivisionError("no units")
        if p["x"] == 3:
            return {"loss": math.nan}
        if p["x"] == 4:
            return {"wrong": 1.0}
        if p["x"] == 5:
            return 7.0
        return evaluate(p), {"bytes": 4}

    path = tmp_path / "c.sqlite"
    with campaign(store=path) as c:
        c.run(evaluator, budget=100)
        frame = c.frame().set_index("x")
        assert frame["state"].value_counts().to_dict() == {"done": 8, "failed": 8}
        assert set(frame.loc[2, "error"]) == {"ZeroDivisionError: no units"}
        assert set(frame.loc[3, "error"]) == {"ValueError: loss must be finite, got nan"}
        assert "'wrong' is not an objective" in frame.loc[4, "error"].iloc[0]
        assert "must return values by objective name, got 7.0" in frame.loc[5, "error"].iloc[0]
        traces = [record.payload["trace"] for record in c._ledger._store.records() if record.kind == "fail"]
    assert sum("in evaluator" in trace and "no units" in trace for trace in traces) == 2


def test_a_run_counts_done_and_failed_trials_and_those_before_it():
    c = campaign()
    c.fail(c.ask()[0], "broken")
    calls = []
    c.run(lambda p: calls.append(p) or evaluate(p), budget=4)
    assert (c.finished, len(calls)) == (4, 3)
    c.run(lambda p: calls.append(p) or evaluate(p), budget=4)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="budget must be at least 0, got -1"):
        c.run(evaluate, budget=-1)


def test_a_run_retries_infrastructure_errors():
    answers = iter([dse.InfrastructureError("gone"), dse.InfrastructureError("gone"), None])

    def evaluator(p):
        if error := next(answers):
            raise error
        return evaluate(p)

    c = campaign()
    c.run(evaluator, budget=1, backoff=dse.BackOff(0.0))
    assert [(t.id, t.state, t.attempts) for t in c.trials] == [(0, "done", 2)]


def test_a_run_gives_up_when_three_trials_in_a_row_are_abandoned():
    def evaluator(p):
        raise dse.InfrastructureError("server down")

    c = campaign()
    with pytest.raises(RuntimeError, match=r"3 trials in a row, 4 times each.*server down"):
        c.run(evaluator, budget=5, backoff=dse.BackOff(0.0))
    assert [t.state for t in c.trials] == ["abandoned"] * 3


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_and_its_trial_is_evaluated_again(tmp_path, interrupt):
    calls = []

    def evaluator(p):
        calls.append(p)
        if len(calls) == 3:
            raise interrupt
        return evaluate(p)

    path = tmp_path / "c.sqlite"
    with campaign(store=path) as c:
        with pytest.raises(interrupt):
            c.run(evaluator, budget=5)
        assert c.finished == 2
        c.run(evaluator, budget=3)  # in the same process
        assert calls[2] == calls[3]
    with campaign(store=path) as c:
        assert [t.state for t in c.trials] == ["done"] * 3


def test_events_tell_a_display_what_happens_and_how_far_the_run_is():
    events = []

    def evaluator(p):
        if len(events) > 4:
            raise RuntimeError("broken")
        return evaluate(p)

    campaign().run(evaluator, budget=2, on_event=events.append)
    seen = [(type(e).__name__, e.trial.id, e.finished, e.budget) for e in events]
    assert seen == [
        ("Asked", 0, 0, 2),
        ("Started", 0, 0, 2),
        ("Done", 0, 1, 2),
        ("Asked", 1, 1, 2),
        ("Started", 1, 1, 2),
        ("Failed", 1, 2, 2),
    ]


def test_the_frame_has_one_row_per_trial_and_its_scalar_metrics():
    c = campaign()
    first, second, _ = c.ask(3)
    c.tell(first, {"loss": 1.0}, metrics={"bytes": 4, "parts": [1, 2]}, seconds=0.5)
    c.fail(second, "broken")
    frame = c.frame()
    assert list(frame.columns) == ["id", "state", "x", "flow", "area", "loss", "bytes", "seconds", "error"]
    assert list(frame["id"]) == [0, 1, 2]
    assert list(frame["state"]) == ["done", "failed", "pending"]
    assert frame.loc[0, ["loss", "bytes", "seconds"]].tolist() == [1.0, 4, 0.5]
    assert frame.loc[1, "error"] == "broken"
    assert pd.isna(frame.loc[1, "loss"])


def test_the_front_of_a_fully_evaluated_space_is_found_by_hand():
    c = campaign()
    c.run(evaluate, budget=16)
    front = c.pareto()
    # Flow b only adds to the loss; along x area rises as loss falls.
    assert list(front["flow"]) == ["a"] * 8
    assert list(front["x"]) == list(range(8))
    assert list(front["area"]) == [x**2 for x in range(8)]
    # Reference (50, 11): a step at every x of width 50 - x^2 and height 1.
    assert c.hypervolume({"area": 50, "loss": 11}) == sum(50 - x**2 for x in range(8))


def test_hypervolume_works_in_log10_in_the_objectives_direction_and_at_the_threshold():
    wanted = [
        dse.Objective("energy", transform="log", threshold=1000.0),
        dse.Objective("speed", minimize=False, threshold=2.0),
    ]
    c = dse.Campaign(space(), wanted, seed=0, method="sobol")
    assert c.hypervolume() == 0.0
    c.tell(c.ask()[0], {"energy": 10.0, "speed": 5.0})
    assert c.hypervolume() == pytest.approx((3 - 1) * (5 - 2))
    assert c.hypervolume({"energy": 100.0, "speed": 4.0}) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="reference must have energy, speed, got energy"):
        c.hypervolume({"energy": 100.0})


def test_a_known_objective_that_is_not_a_number_is_reported_with_its_design():
    wanted = [dse.Objective("area", known=lambda p: math.nan), dse.Objective("loss")]
    c = dse.Campaign(space(), wanted, seed=0, method="sobol")
    (trial,) = c.ask()
    with pytest.raises(ValueError, match="area must be finite, got nan") as caught:
        c.tell(trial, {"loss": 1.0})
    assert caught.value.__notes__ == [f"in the known objective area of {trial.parameters}"]
