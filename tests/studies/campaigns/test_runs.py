"""Run folders are read as they are, whoever wrote them and whether or not they are finished."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import Campaign, Categorical, Fidelity, Objective, Ordinal, Space
from studies.campaigns.figures import text_of
from studies.campaigns.report import look, write_report
from studies.campaigns.runs import RunError, find_runs, read_run
from studies.campaigns.space_of import space_of

VERSION_1 = Path(__file__).parents[2] / "dse" / "data" / "version1.sqlite"


def search(folder, budget, wanted=None):
    space = Space([Ordinal("x", range(8)), Categorical("flow", ("a", "b"))])
    wanted = wanted or [Objective("cost"), Objective("gain", minimize=False, threshold=0.0, unit="dB")]
    campaign = Campaign(space, wanted, seed=1, method="random", store=folder / "campaign.sqlite")
    while campaign.finished < budget:
        (trial,) = campaign.ask()
        x = trial.parameters["x"]
        if x == 5:
            campaign.fail(trial, "<b>five</b> & more")
        else:
            campaign.tell(trial, {"cost": float(x), "gain": 5.0 - (x - 3) ** 2}, metrics={"note": "n"})
    return campaign


def test_a_campaign_that_runs_can_be_read(tmp_path):
    with search(tmp_path, 9) as campaign:
        campaign.ask()
        run = read_run(tmp_path)
        assert run.states["pending"] == 1
        assert len(run.frame) == 10
    done = run.done
    assert run.names == ["x", "flow"]
    assert [wanted.label for wanted in run.objectives] == ["cost", "gain, dB"]
    assert (done["gain"] == 5.0 - (done["x"] - 3) ** 2).all()
    assert set(done["note"]) == {"n"}
    assert run.changed > run.created > "2020"


def test_front_and_hypervolume_are_those_of_the_values(tmp_path):
    search(tmp_path, 12).close()
    run = read_run(tmp_path)
    cost, gain = run.done["cost"].to_numpy(), run.done["gain"].to_numpy()
    beaten = [
        any(
            (c <= cost[i]) & (g >= gain[i]) & ((c < cost[i]) | (g > gain[i]))
            for c, g in zip(cost, gain, strict=True)
        )
        for i in range(len(cost))
    ]
    assert run.on_front.tolist() == [not b for b in beaten]
    # The box: from the least cost to a tenth of the range beyond the largest; from the best gain to 0.
    worst = cost.max() + 0.1 * np.ptp(cost)
    assert run.reference().tolist() == [worst, 0.0]
    grid_c = np.linspace(cost.min(), worst, 801)[1:] - (worst - cost.min()) / 1600
    grid_g = np.linspace(0, gain.max(), 801)[1:] - gain.max() / 1600
    for count in (1, 4, len(cost)):
        covered = np.zeros((800, 800), dtype=bool)
        for c, g in zip(cost[:count], gain[:count], strict=True):
            covered |= (grid_c[:, None] >= c) & (grid_g[None, :] <= g)
        assert run.hypervolumes()[count - 1] == pytest.approx(covered.mean(), abs=0.005)


def test_a_store_of_version_1_is_read(tmp_path):
    shutil.copy(VERSION_1, tmp_path / "campaign.sqlite")
    run = read_run(tmp_path)
    assert run.states == {"done": 2, "failed": 1, "pending": 1, "running": 1, "abandoned": 1}
    assert [wanted.transform for wanted in run.objectives] == ["none", "log"]
    assert space_of(run).names == ("x", "y", "flow")
    write_report(run, tmp_path / "page.html")
    assert "at least 5 results, got 2" in (tmp_path / "page.html").read_text()


def test_a_folder_that_cannot_be_written_is_read(tmp_path):
    search(tmp_path, 6).close()
    before = sorted(path.name for path in tmp_path.iterdir())
    tmp_path.chmod(0o555)
    try:
        if not os.access(tmp_path, os.W_OK):  # the superuser may write anything
            assert len(read_run(tmp_path).frame) == 6
            assert sorted(path.name for path in tmp_path.iterdir()) == before
    finally:
        tmp_path.chmod(0o755)
    assert len(read_run(tmp_path / "campaign.sqlite").frame) == 6


def test_what_an_evaluator_said_cannot_break_the_page(tmp_path):
    search(tmp_path, 16).close()
    run = read_run(tmp_path)
    assert run.states["failed"] == 2
    write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>five</b>" not in page
    assert "&lt;b&gt;five&lt;/b&gt; &amp; more" in page


def test_trials_outside_an_outcome_constraint_are_shown_and_not_on_the_front(tmp_path):
    search(tmp_path, 9).close()
    run = read_run(tmp_path)
    outside = run.frame["x"] == run.done["x"].min()
    frame = run.frame.assign(trial_state=run.frame["trial_state"].mask(outside, "infeasible"))
    changed = replace(run, frame=frame, outcomes=("cost",))
    assert len(changed.done) == len(run.done) - outside.sum()
    assert run.done["cost"].min() < changed.reference()[0]
    write_report(changed, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"outside an outcome constraint ({outside.sum()})" in page
    begin = page.index("const rows = ") + len("const rows = ")
    rows = json.loads(page[begin : page.index(";\n", begin)])
    assert {row["id"] for row in rows if row["broken"]} == set(frame["trial_id"][outside])
    assert not any(row["front"] for row in rows if row["broken"])


def test_a_campaign_without_results_has_a_page(tmp_path):
    search(tmp_path, 0).close()
    write_report(read_run(tmp_path), tmp_path / "page.html")
    assert "No trial has a result yet" in (tmp_path / "page.html").read_text()


def test_a_single_objective_has_a_curve_in_place_of_a_front(tmp_path):
    search_one = [Objective("cost", threshold=9.0), Objective("gain", known=lambda p: float(p["x"]))]
    space = Space([Ordinal("x", range(8))])
    with Campaign(
        space, search_one[:1], seed=0, method="sobol", store=tmp_path / "campaign.sqlite"
    ) as campaign:
        campaign.run(lambda p: {"cost": 1.0 + (p["x"] - 3) ** 2}, budget=4)
    run = read_run(tmp_path)
    write_report(run, tmp_path / "page.html")
    assert "best so far" in (tmp_path / "page.html").read_text()
    assert look(run).missing == {"cost": "a model needs at least 5 results, got 4"}


def test_folders_without_campaigns_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"there is no campaign\.sqlite"):
        read_run(tmp_path)
    (tmp_path / "campaign.sqlite").write_text("text")
    with pytest.raises(RunError, match="is not a campaign store"):
        read_run(tmp_path)
    assert list(find_runs(tmp_path)) == [tmp_path]
    with pytest.raises(RunError, match="no such folder"):
        list(find_runs(tmp_path / "none"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.1234567, "0.123457"),
        (3, "3"),
        (("a", 1), "a 1"),
        ("x", "x"),
        (True, "True"),
    ],
)
def test_values_are_written_as_a_person_would(value, text):
    assert text_of(value) == text


def test_only_full_evaluations_of_a_campaign_with_fidelities_are_done(tmp_path):
    space = Space([Ordinal("x", range(9))])
    epochs = Fidelity("epochs", (1, 4))
    store = tmp_path / "campaign.sqlite"
    with Campaign(space, [Objective("loss")], seed=0, fidelity=epochs, store=store) as campaign:
        campaign.run(lambda p: {"loss": p["x"] - 9 * (p["epochs"] == 1)}, budget=4)
        front = campaign.pareto()
    run = read_run(tmp_path)
    assert set(run.frame["trial_fidelity"]) == {1, 4}
    assert set(run.done["trial_fidelity"]) == {4}
    assert run.done["trial_id"][run.on_front].tolist() == front["id"].tolist()
