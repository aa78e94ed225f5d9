from pathlib import Path

import numpy as np
import pytest

import dse
from studies.campaigns.feasibility import draw, feasibility_map
from studies.campaigns.report import write_report
from studies.campaigns.runs import read_run
from studies.campaigns.space_of import space_of

SPACE = dse.Space(
    [
        dse.PowerOfTwo("rows", 4, 64),
        dse.Ordinal("columns", (4, 8, 16, 32)),
        dse.Categorical("flow", ("os", "ws")),
        dse.Integer("depth", 1, 90, active_if=("flow", ["ws"])),
    ]
)


def run_of(folder: Path, fails, *, budget=30, space=SPACE):
    """A campaign on a Sobol sequence, in which designs fail as told."""

    def evaluate(p):
        if kind := fails(p):
            raise kind("does not fit")
        return {"time": float(p["rows"])}

    with dse.Campaign(
        space, [dse.Objective("time")], seed=1, method="sobol", store=folder / "campaign.sqlite"
    ) as campaign:
        campaign.run(evaluate, budget=budget, backoff=dse.BackOff(0.0))
    return read_run(folder)


def test_the_map_shows_where_designs_fail_by_the_parameters_that_decide_it(tmp_path):
    run = run_of(tmp_path, lambda p: ValueError if p["rows"] * p["columns"] > 256 else None, budget=40)
    found = feasibility_map(run, space_of(run))
    assert set(found.names) == {"rows", "columns"}
    side = dict(zip(found.names, found.values, strict=True))
    assert side == {"rows": (4, 8, 16, 32, 64), "columns": (4, 8, 16, 32)}
    across, up = (np.array(side[name]) for name in found.names)
    fits = up[:, None] * across[None, :] <= 256
    assert found.probability.shape == fits.shape
    assert found.probability[fits].min() > found.probability[~fits].max()
    figure = draw(run, found)
    heat, good, bad = figure.data
    assert heat.type == "heatmap"
    assert len(good.x) == run.states["done"]
    assert len(bad.x) == run.states["failed"]
    write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"by {found.names[0]} and {found.names[1]}, which decide most about it" in page


def test_failures_of_the_infrastructure_say_nothing(tmp_path):
    def fails(p):
        if p["columns"] == 32:
            return ValueError
        return dse.InfrastructureError if p["rows"] == 4 and p["flow"] == "os" else None

    run = run_of(tmp_path, fails)
    assert run.states["abandoned"] > 0
    found = feasibility_map(run, space_of(run))
    assert found.names[0] == "columns"
    figure = draw(run, found)
    assert sum(len(trace.x) for trace in figure.data[1:]) <= run.states["done"] + run.states["failed"]


def test_a_single_parameter_has_a_curve_and_one_of_many_values_an_axis_of_numbers(tmp_path):
    space = dse.Space([dse.Real("rows", 0.0, 1.0)])
    run = run_of(tmp_path, lambda p: ValueError if p["rows"] > 0.5 else None, space=space)
    found = feasibility_map(run, space_of(run))
    assert found.names == ("rows",)
    (chance,) = found.probability
    assert chance[:8].min() > 0.9
    assert chance[12:].max() < 0.1
    figure = draw(run, found)
    assert figure.layout.xaxis.type == "linear"
    assert set(figure.data[1].y) == {100.0}
    assert set(figure.data[2].y) == {0.0}


def test_where_nothing_has_a_result_the_page_still_has_the_map(tmp_path):
    run = run_of(tmp_path, lambda p: ValueError, budget=9)
    write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "No trial has a result yet" in page
    assert "which decide most about it" in page


@pytest.mark.parametrize(
    ("budget", "fails", "said"),
    [
        (3, lambda p: ValueError, "No map of where designs fail: a model needs at least 5 trials, got 3"),
        (6, lambda p: None, None),
    ],
)
def test_without_enough_failures_there_is_no_map(tmp_path, budget, fails, said):
    run = run_of(tmp_path, fails, budget=budget)
    write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "which decide most about it" not in page
    assert ("No map" in page) == (said is not None)
    assert said is None or said in page
