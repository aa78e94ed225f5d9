from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.methods import METHODS, bayesian
from dse.metrics import reference_point


@st.composite
def problems(draw, largest=4):
    """A small space with a constraint, and one to three objectives, known and learnt."""
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=3))
    parameters = [dse.Ordinal(f"p{i}", range(1, size + 1), log=bool(i % 2)) for i, size in enumerate(sizes)]
    parameters.append(dse.Categorical("flow", ("a", "b", "c")[: draw(st.integers(1, 3))]))
    modulus = draw(st.integers(2, 5))
    weights = {parameter.name: i + 1 for i, parameter in enumerate(parameters)}

    def total(p):
        return sum(weights[name] * (len(v) if isinstance(v, str) else v) for name, v in p.items())

    rule = [lambda p: None if total(p) % modulus else "multiple"]
    try:
        space = dse.Space(parameters, constraints=rule)
    except ValueError:
        space = dse.Space(parameters)
    wanted = [
        dse.Objective("area", known=total, transform="log"),
        dse.Objective("loss", minimize=draw(st.booleans())),
        dse.Objective("time", inputs=("p0", "flow")),
    ]
    chosen = draw(st.sampled_from([(0, 1), (1,), (1, 2), (0, 1, 2), (0,)]))
    return space, [wanted[i] for i in chosen]


def evaluate(campaign, trial):
    """Deterministic values that look random; about one design in six fails."""
    rng = np.random.default_rng(list(repr(campaign.space.design(trial.parameters)).encode()))
    if rng.random() < 0.15:
        campaign.fail(trial, "broken")
        return
    learnt = [objective.name for objective in campaign.objectives if objective.known is None]
    campaign.tell(trial, {name: rng.normal() for name in learnt})


def check_exhaustion(problem, method, batch, seed):
    space, objectives = problem
    campaign = dse.Campaign(space, objectives, seed=seed, method=method, initial=3)
    feasible, designs = set(space.designs()), []
    while asked := campaign.ask(batch):
        last = asked
        designs += [space.design(trial.parameters) for trial in asked]
        assert len(set(designs)) == len(designs)
        assert set(designs) <= feasible
        for trial in asked[:-1] or asked:  # the last of a batch stays pending
            evaluate(campaign, trial)
    assert set(designs) == feasible
    assert len(last) == (len(designs) - 1) % batch + 1


@pytest.mark.parametrize("method", ["random", "sobol"])
@given(problem=problems(), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_feasible_design_is_asked_once_and_no_other(method, problem, batch, seed):
    check_exhaustion(problem, method, batch, seed)


@settings(max_examples=4)
@given(problem=problems(largest=2), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_model_too_asks_every_feasible_design_once_and_no_other(problem, batch, seed):
    check_exhaustion(problem, "qlognehvi", batch, seed)


@settings(max_examples=4)
@given(problem=problems(largest=3), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_neither_pool_nor_front_nor_climbs_lead_to_a_repeated_or_infeasible_design(problem, batch, seed):
    # As if the space were too large to list: candidates are a pool and what is found from there.
    with mock.patch.multiple(bayesian, _ENUMERATED=0, _ENUMERATED_KNOWN=0, _POOL=3):
        check_exhaustion(problem, "qlognehvi", batch, seed)


def array_space():
    """Too large to enumerate: 12 000 designs, of which most are feasible."""
    return dse.Space(
        [
            dse.Ordinal("rows", [2**i for i in range(10)], log=True),
            dse.Ordinal("columns", [2**i for i in range(10)], log=True),
            dse.Ordinal("bits", range(2, 42)),
            dse.Categorical("flow", ("output", "weight", "input")),
        ],
        constraints=[lambda p: None if p["rows"] * p["columns"] <= 65_536 else "too large"],
    )


def array_campaign(known=lambda p: p["rows"] * p["columns"] * p["bits"], **options):
    objectives = [dse.Objective("area", known=known, transform="log"), dse.Objective("loss", transform="log")]
    return dse.Campaign(array_space(), objectives, **{"seed": 1, "initial": 8, **options})


def loss(p):
    reuse = {"output": 1.0, "weight": 1.5, "input": 3.0}[p["flow"]]
    return {"loss": 2.0 ** (-p["bits"] / 4) + reuse / (p["rows"] * p["columns"]) ** 0.5}


def history(campaign):
    return [(t.id, t.state, t.parameters, t.values) for t in campaign.trials]


def test_equal_seeds_and_histories_give_equal_proposals_resumed_or_not(tmp_path):
    straight = array_campaign()
    straight.run(loss, budget=13)
    for budget in (5, 9, 11, 13):  # within the Sobol trials, after the first model, and later
        with array_campaign(store=tmp_path / "campaign.sqlite") as resumed:
            resumed.run(loss, budget=budget)
    assert history(resumed) == history(straight)
    other = array_campaign(seed=2)
    other.run(loss, budget=2)
    assert [t.parameters for t in other.trials] != [t.parameters for t in straight.trials[:2]]


def test_a_large_space_is_searched_without_repetition_or_infeasible_designs():
    campaign = array_campaign()
    campaign.run(loss, budget=14)
    asked = campaign.ask(3)
    assert [trial.id for trial in asked] == [14, 15, 16]
    designs = [campaign.space.design(trial.parameters) for trial in campaign.trials]
    assert len(set(designs)) == 17
    assert all(campaign.space.is_feasible(design) for design in designs)
    assert campaign.notes == ()


def test_the_model_finds_a_better_front_than_a_sobol_sequence():
    volumes = {}
    for method in ("qlognehvi", "sobol"):
        campaign = array_campaign(method=method)
        campaign.run(loss, budget=20)
        volumes[method] = campaign.hypervolume({"area": 1e7, "loss": 10.0})
    # Over the seeds 0 to 7 the ratio was between 1.06 and 1.21; of seed 1 it was 1.21.
    assert volumes["qlognehvi"] > 1.1 * volumes["sobol"]


def test_a_single_objective_is_driven_to_its_optimum():
    space = dse.Space([dse.Ordinal(name, range(30)) for name in ("x", "y", "z")])
    campaign = dse.Campaign(space, [dse.Objective("loss")], seed=0, initial=8)
    campaign.run(lambda p: {"loss": (p["x"] - 21) ** 2 + (p["y"] - 4) ** 2 + (p["z"] - 11) ** 2}, budget=22)
    # One of 27 000 designs is the optimum; 33 lie within a squared distance of 4.
    assert campaign.pareto()["loss"].iloc[0] <= 4


def test_known_objectives_are_called_once_per_design_and_a_few_thousand_times_at_most():
    calls = []

    def area(p):
        calls.append(tuple(p.values()))
        return p["rows"] * p["columns"] * p["bits"]

    campaign = array_campaign(known=area)
    counts = []
    for _ in range(11):
        before = len(calls)
        (trial,) = campaign.ask()
        counts.append(len(calls) - before)
        campaign.tell(trial, loss(trial.parameters))
    assert len(set(calls)) == len(calls)
    assert counts[:8] == [0] * 8
    assert 1500 <= counts[8] <= 3000
    assert max(counts[9:]) <= 1000


def test_few_designs_are_all_candidates():
    space = dse.Space([dse.Ordinal("x", range(60)), dse.Ordinal("y", range(60))])
    calls = []
    wanted = [
        dse.Objective("area", known=lambda p: calls.append(1) or p["x"] + p["y"]),
        dse.Objective("loss"),
    ]
    campaign = dse.Campaign(space, wanted, seed=0, initial=2)
    campaign.run(lambda p: {"loss": 60.0 - p["x"]}, budget=3)
    assert len(calls) == space.size


def test_before_two_trials_are_done_the_sobol_sequence_goes_on_with_a_note():
    campaign = array_campaign(initial=2)
    sobol = array_campaign(initial=2, method="sobol")
    assert [t.parameters for t in campaign.ask(4)] == [t.parameters for t in sobol.ask(4)]
    assert campaign.notes == ((0, "Sobol design: a model needs 2 finished designs, got 0"),)


def test_a_fit_that_fails_is_noted_in_the_store_and_the_sobol_sequence_steps_in(tmp_path, monkeypatch):
    from dse._bayes import models

    def hopeless(*arguments, **options):
        raise models.ModelError("no kernel fits")

    sobol = array_campaign(method="sobol")
    sobol.run(loss, budget=10)
    monkeypatch.setattr(models, "fit", hopeless)
    with array_campaign(store=tmp_path / "campaign.sqlite") as campaign:
        campaign.run(loss, budget=10)
        assert [t.parameters for t in campaign.trials] == [t.parameters for t in sobol.trials]
    with array_campaign(store=tmp_path / "campaign.sqlite") as campaign:
        text = "Sobol design: no kernel fits"
        assert campaign.notes == ((8, text), (9, text))


def test_the_reference_is_the_threshold_or_the_worst_value_and_a_tenth_of_the_range():
    costs = [[1.0, 4.0, 2.0], [3.0, 0.0, 2.0]]
    found = reference_point(costs, [np.nan, -2.0, np.nan])
    np.testing.assert_allclose(found, [3.2, -2.0, 2.1], rtol=1e-15)


def test_methods_are_those_a_campaign_accepts():
    for method in METHODS:
        assert array_campaign(method=method).ask()[0].id == 0
