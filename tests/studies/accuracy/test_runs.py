import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.accuracy.collect import planned, read_parts
from studies.accuracy.policies import NAMES, NumericsChoice, drawn
from studies.accuracy.runs import TABLE, frame_of, read_runs, write_runs
from studies.accuracy.subjects import SUBJECTS
from studies.accuracy.training import FIDELITIES, Measured, measure_run

RUNS = read_runs()


def part(task="digits-mlp", number=0, seed=0, accuracy=0.9):
    measured = [
        Measured(
            fidelity=share,
            steps=10,
            test_accuracy=accuracy,
            test_loss=0.1,
            training_loss=0.1,
            skipped_steps=0,
            seconds=1.0,
            diverged=False,
        )
        for share in FIDELITIES
    ]
    return {
        "task": task,
        "configuration": number,
        "seed": seed,
        "parameters": NumericsChoice().parameters if number >= 0 else None,
        "measured": [asdict(one) for one in measured],
    }


def test_a_table_reads_back(tmp_path):
    table = frame_of([part(), part(number=-1), part(accuracy=math.nan)])
    write_runs(table, tmp_path / "runs.csv.gz")
    again = read_runs(tmp_path / "runs.csv.gz")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert again["chunk"].isna().tolist() == [False] * 3 + [True] * 3 + [False] * 3


def test_equal_tables_are_equal_files(tmp_path):
    for name in ("a", "b"):
        write_runs(frame_of([part()]), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_line_that_was_being_written_is_dropped(tmp_path):
    parts = tmp_path / "parts.jsonl"
    parts.write_text('{"task": "one"}\n{"task": "tw')
    assert read_parts(parts) == [{"task": "one"}]
    assert parts.read_text() == '{"task": "one"}\n'
    assert read_parts(tmp_path / "none") == []


def test_the_plan_has_the_twin_first_and_repeats():
    plan = list(planned(17))
    assert [(number, seed) for number, _, seed in plan[:3]] == [(-1, 0), (-1, 1), (-1, 2)]
    assert [number for number, _, seed in plan if number >= 0 and seed == 1] == [0, 8, 16]
    assert len({(number, seed) for number, _, seed in plan}) == len(plan)


def test_the_package_has_a_run_table():
    whole = RUNS[RUNS["fidelity"] == 1.0]
    assert len(whole) >= 150
    assert set(whole["task"]) == set(SUBJECTS)
    assert TABLE.stat().st_size < 200_000
    assert not whole.duplicated(["task", "configuration", "seed"]).any()
    assert (RUNS.groupby(["task", "configuration", "seed"]).size() == len(FIDELITIES)).all()


def test_its_configurations_are_those_of_the_draw():
    choices = drawn(int(RUNS["configuration"].max()) + 1)
    for row in RUNS[RUNS["configuration"] >= 0].to_dict("records"):
        assert NumericsChoice.of(row) == choices[row["configuration"]]


def test_it_goes_from_perfect_to_hopeless():
    whole = RUNS[(RUNS["fidelity"] == 1.0) & (RUNS["configuration"] >= 0)]
    for task, rows in whole.groupby("task"):
        twin = RUNS[(RUNS["task"] == task) & (RUNS["configuration"] < 0) & (RUNS["fidelity"] == 1.0)]
        best = rows["test_accuracy"].max()
        assert best > twin["test_accuracy"].mean() - 0.03
        assert rows["test_accuracy"].fillna(0.0).min() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_runs_are_made_again(name):
    subject = SUBJECTS[name]
    task = subject.build(Path())
    rows = RUNS[(RUNS["task"] == name) & (RUNS["seed"] == 0) & RUNS["configuration"].isin([0, 2, 7])]
    for number, measured in rows.groupby("configuration"):
        choice = NumericsChoice.of(measured[list(NAMES)].iloc[0].to_dict())
        found = measure_run(subject, task, task.load(), choice, seed=0)
        stored = measured.sort_values("fidelity")["test_accuracy"].to_numpy()
        # Bit-true sums are equal everywhere; the functions between them may differ in a last place.
        assert np.array([one.test_accuracy for one in found]) == pytest.approx(stored, abs=0.02), number
