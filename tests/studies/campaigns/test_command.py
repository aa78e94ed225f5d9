"""The commands ``campaign``, ``runs`` and ``report`` on tables and outside programs."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.campaigns.runs import read_run

TABLE = ("--objectives", "time:min,area:min", "--method", "sobol", "--no-report")


def table_options(path, *more):
    return ("campaign", "--table", path, *TABLE, *more)


def refused(result, *parts):
    """Exit code 2, and one line that has these parts."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def test_a_table_is_searched_and_the_run_goes_on_with_a_larger_budget(bitfront, table_file, frame):
    assert bitfront(*table_options(table_file, "--budget", 12)).exit_code == 0
    first = read_run(Path("runs/designs"))
    assert first.names == ["knob_size", "knob_depth", "knob_mode"]
    assert first.states == {"done": 12}
    assert bitfront(*table_options(table_file, "--budget", 20)).exit_code == 0
    run = read_run(Path("runs/designs"))
    assert run.states == {"done": 20}
    pd.testing.assert_frame_equal(run.frame.head(12), first.frame)
    # Every trial has what the table says of its row.
    merged = run.frame.merge(frame, on=run.names, suffixes=("", "_table"))
    assert len(merged) == 20
    assert (merged["time"] == merged["time_table"]).all()
    assert (merged["area"] == merged["area_table"]).all()
    written = pd.read_csv("runs/designs/evaluations.csv", keep_default_na=False)
    assert written["trial_id"].tolist() == list(range(20))
    assert set(written["knob_mode"]) == {"off", "NA"}


def test_rows_that_are_not_valid_fail(bitfront, table_file, frame):
    result = bitfront(*table_options(table_file, "--budget", 60, "--valid", "valid"))
    assert result.exit_code == 0
    run = read_run(Path("runs/designs"))
    assert run.states == {"done": int(frame["valid"].sum()), "failed": int((frame["valid"] == 0).sum())}
    assert "is not valid" in run.frame.loc[run.frame["trial_state"] == "failed", "trial_error"].iloc[0]


def test_equal_seeds_give_equal_runs(bitfront, table_file):
    for name in ("a", "b"):
        bitfront(*table_options(table_file, "--budget", 8, "--seed", 5, "--run", name))
    bitfront(*table_options(table_file, "--budget", 8, "--seed", 6, "--run", "c"))
    a, b, c = (read_run(Path(name)).frame.drop(columns="trial_seconds") for name in "abc")
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)


def test_a_program_evaluates_designs_and_its_results_are_kept(bitfront, program_file):
    result = bitfront("campaign", program_file, "--workers", 2, "--no-report")
    assert result.exit_code == 0, result.output
    run = read_run(Path("runs/chip"))
    assert len(run.frame) == 12
    assert set(run.states) <= {"done", "failed"}
    for row in run.done.to_dict("records"):
        depth = 0 if np.isnan(row["depth"]) else row["depth"]
        expected = 1e4 / (row["rows"] * row["columns"]) * (1 + 0.1 * depth) * (1 + row["loops"].index("k"))
        assert row["time"] == pytest.approx(expected)
        assert row["area"] == row["rows"] * row["columns"] * 2 <= 1024
        assert row["note"] == "measured"
    # Another run of the same seed needs no evaluation: all results are in the cache.
    bitfront("campaign", program_file, "--run", "again", "--no-report")
    with closing(sqlite3.connect("again/campaign.sqlite")) as store:
        cached = [
            bool(value) for (value,) in store.execute("SELECT cached FROM evaluations WHERE state = 'done'")
        ]
    assert all(cached)
    assert len(cached) == len(run.done)


def test_the_configuration_in_the_run_folder_starts_the_same_campaign(bitfront, table_file):
    bitfront(*table_options(table_file, "--budget", 6, "--seed", 9))
    assert bitfront("campaign", "runs/designs/config.toml", "--run", "copy", "--no-report").exit_code == 0
    frames = (read_run(Path(name)).frame for name in ("runs/designs", "copy"))
    first, second = (frame.drop(columns="trial_seconds") for frame in frames)
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        (lambda f: f.drop(columns="area"), (), ["no column 'area'"]),
        (lambda f: f.assign(area=3.0), (), ["'area' is constant, 3 in every row"]),
        (
            lambda f: f.assign(time=f["time"].where(f.index != 7)),
            (),
            ["'time' must be finite, got nan in row 7"],
        ),
        (lambda f: f.assign(time="slow"), (), ["'time' must be finite, got slow in row 0"]),
        (lambda f: f.assign(knob_depth=f["knob_depth"].where(f.index != 4)), (), ["knob_depth", "row 4"]),
        (lambda f: pd.concat([f, f.iloc[[3]]]), (), ["rows 3 and 60 of the table are the same design"]),
        (lambda f: f.assign(valid=0), ("--valid", "valid"), ["no row is feasible"]),
        (lambda f: f.assign(valid=2), ("--valid", "valid"), ["must hold 0 or 1, got '2' in row 0"]),
        (lambda f: f, ("--valid", "ok"), ["no column 'ok'"]),
        (lambda f: f, ("--budget", 0), ["--budget: must be at least 1, got 0"]),
        (lambda f: f, ("--seed", -1), ["--seed: must be in 0.."]),
        (lambda f: f, ("--method", "magic"), ["--method: must be one of random,", "got 'magic'"]),
        (lambda f: f, ("--objectives", "time:down"), ["must be NAME:min or NAME:max, got 'time:down'"]),
        (lambda f: f, ("--objectives", "time,time"), ["distinct, got 'time' twice"]),
        (lambda f: f, ("--columns", "knob_size,,x"), ["--columns"]),
        (lambda f: f, ("--columns", "knob_size,time"), ["'time' cannot be both"]),
        (lambda f: f, ("--features", "guess"), ["no column 'guess'"]),
        (lambda f: f, ("--transfer", "nowhere"), ["--transfer nowhere: holds no campaign"]),
        (lambda f: f.iloc[:0], (), ["at least one row"]),
    ],
)
def test_bad_tables_and_options_are_refused_in_one_line(bitfront, tmp_path, frame, change, options, parts):
    path = tmp_path / "bad.csv"
    change(frame).to_csv(path, index=False)
    refused(bitfront(*table_options(path, *options)), *parts)
    assert not Path("runs/bad/campaign.sqlite").exists()


def test_files_that_are_no_tables_are_refused(bitfront, tmp_path, table_file):
    refused(bitfront(*table_options("none.csv")), "none.csv: no such file")
    refused(bitfront(*table_options(tmp_path)), "is a folder")
    (tmp_path / "empty.csv").write_text("")
    refused(bitfront(*table_options(tmp_path / "empty.csv")), "is not a CSV table: it is empty")
    for text in ("", "\n# nothing yet\n"):
        (tmp_path / "empty.toml").write_text(text)
        refused(
            bitfront("campaign", tmp_path / "empty.toml"),
            "empty.toml: the file is empty; objectives: missing",
        )
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    refused(bitfront(*table_options(tmp_path / "binary.csv")), "is not a CSV table")
    refused(bitfront("campaign"), "either CONFIG or --table")
    refused(bitfront("campaign", "--table", table_file), "--objectives: is needed")
    refused(bitfront("campaign", "x.toml", "--valid", "v"), "--valid: belongs to --table")
    refused(bitfront("campaign", "x.toml"), "x.toml: no such file")


def test_transfer_needs_something_in_common(bitfront, table_file, tmp_path):
    pd.DataFrame({"other": [1, 2], "time": [1.0, 2.0]}).to_csv(tmp_path / "other.csv", index=False)
    refused(bitfront(*table_options(table_file, "--transfer", "other.csv")), "no parameter in common")
    pd.DataFrame({"knob_size": [1, 2], "speed": [1.0, 2.0]}).to_csv(tmp_path / "other.csv", index=False)
    refused(
        bitfront(*table_options(table_file, "--transfer", "other.csv")), "no objective to learn in common"
    )
    refused(bitfront(*table_options(table_file, "--transfer", "nowhere")), "nowhere: holds no campaign")
    (tmp_path / "empty.csv").write_text("")
    refused(bitfront(*table_options(table_file, "--transfer", "empty.csv")), "it is empty")


def test_a_run_goes_on_with_the_transfer_it_began_with(bitfront, table_file, tmp_path, frame):
    frame.iloc[::2].to_csv(tmp_path / "old.csv", index=False)
    options = table_options(table_file, "--method", "qlognehvi")
    ways = {
        "straight": [("--budget", 8, "--transfer", "old.csv")],
        "resumed": [("--budget", 6, "--transfer", "old.csv"), ("--budget", 8)],
        "without": [("--budget", 8)],
    }
    for name, calls in ways.items():
        for call in calls:
            result = bitfront(*options, *call, "--run", name)
            assert result.exit_code == 0, result.output
    straight, resumed, without = (read_run(Path(name)) for name in ways)
    columns = ["trial_id", *straight.names]
    assert resumed.frame[columns].equals(straight.frame[columns])
    assert not without.frame[columns].equals(straight.frame[columns])
    weights = [[(trial, text.rpartition(" ")[2]) for trial, text in run.notes] for run in (straight, resumed)]
    assert weights[0] == weights[1] != []
    # The configuration in the folder says it too, and a source that is gone is missed.
    again = bitfront("campaign", "resumed/config.toml", "--budget", 9, "--run", "resumed", "--no-report")
    assert again.exit_code == 0, again.output
    (tmp_path / "old.csv").unlink()
    refused(bitfront(*options, "--budget", 10, "--run", "resumed"), "old.csv: holds no campaign")


def test_a_constraint_that_raises_ends_the_run_in_one_line_and_loses_nothing(bitfront, program_file):
    text = program_file.read_text()
    # Without a value for one design in four, and hardly ever for the first.
    rule = '"rows * columns <= 512", "1 / (rows - 32) <= 1"'
    program_file.write_text(text.replace('"rows * columns <= 512"', rule))
    result = bitfront("campaign", program_file, "--no-report")
    refused(result, "chip.toml: ", "'rows': 32")
    if Path("runs/chip/campaign.sqlite").exists():
        done = read_run(Path("runs/chip")).states["done"]
        assert done == len([line for line in result.stdout.splitlines() if "time " in line])


def test_transfer_from_a_campaign_that_wanted_the_opposite_is_refused(bitfront, table_file):
    other = ("--objectives", "time:max,area:min", "--budget", 6, "--method", "sobol", "--no-report")
    assert bitfront("campaign", "--table", table_file, *other, "--run", "other").exit_code == 0
    for method in ("auto", "predict", "sobol"):
        refused(
            bitfront(*table_options(table_file, "--method", method, "--transfer", "other", "--run", "new")),
            "time must be maximised, as transfer other has it, got minimised",
        )
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('kind = "real"', 'kind = "reel"', ["parameters[4].kind: must be one of"]),
        ("low = 0.1\n", "", ["rate of kind real needs low"]),
        ("high = 32", "high = 33", ["powers of two", "33"]),
        ("rows * columns <= 512", "rows * colums <= 512", ["uses 'colums', which is none of"]),
        ("rows * columns <= 512", "rows * columns <= 1", ["must leave a feasible design"]),
        ("rows * columns <= 512", "rows / (columns - 4) <= 1", ["division by zero"]),
        ("rows * columns <= 512", "__import__('os').getcwd() == ''", ["not allowed"]),
        ("rows * columns * 2", "rows < columns", ["must be a number"]),
        ('flow = ["ws"]', 'flux = ["ws"]', ["flux"]),
        ('name = "area"', 'name = "time"', ["distinct, got 'time' twice"]),
        ('method = "sobol"', 'method = "sobel"', ["method: must be one of"]),
        ("budget = 12", "budget = 0", ["budget: must be at least 1, got 0"]),
        ("[program]", '[table]\nfile = "a.csv"\n\n[program]', ["either a [program] or a [table]"]),
        ("seed = 3", "seed = 3\nbudgets = 4", ["budgets: unknown key; did you mean 'budget'?"]),
    ],
)
def test_bad_campaign_files_are_refused_in_one_line(bitfront, program_file, old, new, parts):
    text = program_file.read_text()
    assert text.count(old) >= 1
    program_file.write_text(text.replace(old, new, 1))
    refused(bitfront("campaign", program_file, "--no-report"), "chip.toml", *parts)


def test_a_program_that_is_not_there_is_refused(bitfront, program_file):
    text = program_file.read_text()
    start = text.index("command = [") + len("command = [")
    program_file.write_text(text[:start] + '"no-such-program"' + text[text.index(",", start) :])
    refused(bitfront("campaign", program_file), "no-such-program")


def test_another_campaign_and_a_newer_store_are_refused(bitfront, table_file):
    bitfront(*table_options(table_file, "--budget", 3))
    refused(bitfront(*table_options(table_file, "--budget", 3, "--seed", 1)), "holds another campaign: seed")
    refused(
        bitfront(*table_options(table_file, "--budget", 3, "--objectives", "time:max,area")),
        "holds another campaign",
    )
    with closing(sqlite3.connect("runs/designs/campaign.sqlite")) as store:
        store.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
        store.commit()
    refused(bitfront(*table_options(table_file, "--budget", 3)), "schema version", "99")
    refused(bitfront("report", "runs/designs"), "schema version 1..3, got 99")
    listed = bitfront("runs")
    assert listed.exit_code == 0
    assert "cannot be read" in listed.output


def test_runs_lists_folders_with_their_state(bitfront, table_file, tmp_path):
    bitfront(*table_options(table_file, "--budget", 5, "--run", "runs/one"))
    bitfront(
        *table_options(
            table_file, "--budget", 60, "--valid", "valid", "--method", "random", "--run", "runs/two"
        )
    )
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "campaign.sqlite").write_bytes(b"no database at all" * 100)
    result = bitfront("runs")
    assert result.exit_code == 0
    by_name = {line.split()[0]: line for line in result.output.splitlines()}
    assert set(by_name) == {"run", "runs/one", "runs/two", "runs/broken"}
    assert "sobol" in by_name["runs/one"]
    assert "5 done" in by_name["runs/one"]
    assert "random" in by_name["runs/two"]
    assert "failed" in by_name["runs/two"]
    assert "time:min, area:min" in by_name["runs/two"]
    assert "cannot be read" in by_name["runs/broken"]
    assert "no run folder" in bitfront("runs", tmp_path / "runs" / "notes").output
    refused(bitfront("runs", "nowhere"), "nowhere: no such folder")


def test_a_study_for_optuna_holds_every_trial(bitfront, program_file, tmp_path):
    import optuna

    bitfront("campaign", program_file, "--budget", 8, "--no-report")
    result = bitfront("report", "runs/chip", "--optuna", "study.db")
    assert result.exit_code == 0, result.output
    assert "optuna-dashboard sqlite:///study.db" in result.output
    run = read_run(Path("runs/chip"))
    study = optuna.load_study(study_name="chip", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert len(study.trials) == len(run.frame)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert study.metric_names == ["time", "area"]
    for trial, row in zip(study.trials, run.frame.to_dict("records"), strict=True):
        assert trial.state.name == {"done": "COMPLETE", "failed": "FAIL"}[row["trial_state"]]
        assert trial.params["rows"] == row["rows"]
        assert ("depth" in trial.params) == (row["flow"] == "ws")
        assert trial.params["loops"] == " ".join(row["loops"])
        if row["trial_state"] == "done":
            assert trial.values == [row["time"], row["area"]]
    assert {trial.number for trial in study.best_trials} == set(run.done["trial_id"][run.on_front])
    assert not Path("runs/chip/report.html").exists()
    refused(bitfront("report", "runs/chip", "--optuna", "study.db"), "is there already")
    refused(bitfront("report", "runs/chip", "--optuna", "nowhere/study.db"), "there is no folder")


def test_the_page_has_every_part_and_needs_nothing_else(bitfront, program_file):
    assert bitfront("campaign", program_file, "--no-report").exit_code == 0
    # The folder alone is enough: neither the program nor the configuration is needed.
    shutil.rmtree(program_file.parent)
    Path("runs/chip/config.toml").unlink()
    result = bitfront("report", "runs/chip")
    assert result.exit_code == 0
    assert result.output.strip() == "runs/chip/report.html"
    page = Path("runs/chip/report.html").read_text()
    for heading in (
        "The front",
        "Choose a design",
        "Hypervolume against trials",
        "How well the trials are predicted",
        "Which parameters matter",
        "Parallel coordinates",
        "Slices of time",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "No model of area: it is known exactly and not learnt" in page
    assert 'src="http' not in page
    assert "<link" not in page
    run = read_run(Path("runs/chip"))
    begin = page.index("const rows = ") + len("const rows = ")
    rows = json.loads(page[begin : page.index(";\n", begin)])
    assert {row["id"] for row in rows} == set(run.done["trial_id"])
    assert {row["id"] for row in rows if row["front"]} == set(run.done["trial_id"][run.on_front])
    assert sum(row["knee"] for row in rows) == 1


DIGITS = Path(__file__).parents[3] / "studies" / "configs" / "digits.toml"


def test_a_codesign_campaign_takes_the_same_options(bitfront):
    from studies.codesign.config import CampaignConfig, changed
    from studies.config import load

    config = load(DIGITS, CampaignConfig)
    other = changed(config, {"method": "nsga2", "seed": 7, "budget": 3})
    assert (other.search.method, other.seed, other.evaluations) == ("nsga2", 7, 3)
    assert other.search.thresholds == config.search.thresholds
    assert changed(config, {}) == config
    refused(
        bitfront("campaign", DIGITS, "--method", "magic"), "--method: must be one of random, sobol, nsga2"
    )
    refused(bitfront("campaign", DIGITS, "--method", "predict"), "got 'predict'")
    refused(bitfront("campaign", DIGITS, "--transfer", "runs/a"), "--transfer runs/a", "no campaign")
    refused(
        bitfront("campaign", DIGITS, "--executor", "dask"), "--executor: is for tables and outside programs"
    )


def test_outcome_constraints_of_a_table_make_trials_infeasible(bitfront, table_file, tmp_path, frame):
    path = tmp_path / "limited.toml"
    path.write_text(
        'budget = 60\nmethod = "nsga2"\n[table]\nfile = "designs.csv"\n'
        '[[objectives]]\nname = "time"\n[[outcome_constraints]]\nname = "area"\nat_most = 100\n'
    )
    assert bitfront("campaign", path, "--no-report").exit_code == 0
    run = read_run(Path("runs/limited"))
    within = int((frame["area"] <= 100).sum())
    assert run.states == {"done": within, "infeasible": 60 - within}
    assert run.outcomes == ("area",)
    assert (run.done["area"] <= 100).all()


@pytest.mark.parametrize("method", ["tpe", "nsga2"])
def test_any_campaign_runs_with_another_method_and_says_what_is_not_transferred(bitfront, table_file, method):
    bitfront(*table_options(table_file, "--budget", 8))
    result = bitfront(
        *table_options(
            table_file, "--budget", 14, "--method", method, "--run", "two", "--transfer", "runs/designs"
        )
    )
    assert result.exit_code == 0, result.output
    run = read_run(Path("two"))
    assert run.method == method
    assert run.states == {"done": 14}
    assert run.notes == ((0, f"{method} learns no model, so nothing is transferred from other campaigns"),)
