"""A study that is killed at any moment goes on to the bits of one that nobody killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from studies.cli import main

STUDY = """\
seeds = [0, 1]
steps = {steps}
batch = 64
evaluate_every = 10
evaluation_samples = 100
statistics_every = 4
save_every = 3

[task]
name = "digits-mlp"

[optimizer]
learning_rate = 0.05

[[policies]]
name = "stochastic"
preset = "wang2018"
"""


def command(study, folder, workers):
    options = ["--run", str(folder), "--workers", workers]
    return [sys.executable, "-m", "studies.cli", "train", str(study), *options]


def finish(study, folder, workers="1"):
    """The same command, in this process."""
    result = CliRunner().invoke(main, command(study, folder, workers)[3:])
    assert result.exit_code == 0, result.output


def stamps(folder):
    """What a run has written so far: each checkpoint counts anew, and each outcome."""
    paths = [*folder.glob("runs/*/*/checkpoint.pt"), *folder.glob("runs/*/*/outcome.json")]
    found = set()
    for path in paths:
        try:
            found.add((str(path), path.stat().st_mtime_ns))
        except FileNotFoundError:  # replaced at this moment
            continue
    return found


def kill_after(study, folder, workers, writes):
    """Start the study, and kill it once it has written so often."""
    errors = study.with_name("errors.txt")
    with errors.open("w") as file:
        process = subprocess.Popen(
            command(study, folder, workers), stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
        )
    before, seen = stamps(folder), set()
    deadline = time.monotonic() + 180
    while len(seen) < writes and process.poll() is None and time.monotonic() < deadline:
        seen |= stamps(folder) - before
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the study must outlast the kills: {errors.read_text()}"
    assert len(seen) >= writes
    assert_session_dies(process.pid)


def assert_session_dies(session):
    """Workers of a killed study end by themselves."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a worker outlived its study")


def results(folder):
    """Everything that a study found, but the times: bytes of the weights, curves, outcomes, the table."""
    found = {}
    for path in sorted(folder.glob("runs/*/*/outcome.json")):
        outcome = json.loads(path.read_text())
        for clock in ("seconds", "step_seconds"):
            del outcome["outcome"][clock]
        curve = pd.read_parquet(path.with_name("curve.parquet")).drop(columns="step_seconds")
        weights = path.with_name("weights.pt").read_bytes()
        statistics = path.with_name("statistics.parquet")
        lost = pd.read_parquet(statistics).to_csv() if statistics.exists() else ""
        found[str(path.parent.relative_to(folder))] = (outcome, curve.to_csv(), weights, lost)
    table = pd.read_parquet(folder / "table.parquet").drop(columns="relative_step_time")
    return {**found, "table": table.to_csv()}


def check(tmp_path, steps, kills):
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(steps=steps))
    finish(study, tmp_path / "whole")
    for workers, writes in kills:
        kill_after(study, tmp_path / "killed", workers, writes)
    finish(study, tmp_path / "killed", kills[-1][0])
    found, wanted = results(tmp_path / "killed"), results(tmp_path / "whole")
    assert len(wanted) == 5  # twin and policy, two seeds each, and the table
    assert found == wanted
    assert any(lost for *_, lost in list(found.values())[:4])
    left = {path.name for path in (tmp_path / "killed" / "runs").rglob("*") if path.is_file()}
    assert left == {"outcome.json", "curve.parquet", "weights.pt", "statistics.parquet"}


def test_a_killed_study_ends_with_the_bits_of_one_that_was_not(tmp_path):
    check(tmp_path, steps=60, kills=[("1", 3), ("1", 5), ("1", 8)])


@pytest.mark.slow
def test_a_study_in_several_processes_may_be_killed_a_dozen_times(tmp_path):
    check(tmp_path, steps=150, kills=[("2", 3 + index % 7) for index in range(12)])


@pytest.mark.slow
def test_an_interrupted_study_saves_where_it_is(tmp_path):
    study, folder = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(STUDY.format(steps=2000).replace("save_every = 3", "save_every = 100000"))
    process = subprocess.Popen(
        command(study, folder, "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 180
    while not list(folder.glob("runs/*/*/run.lock")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)  # to the parent alone: it asks the workers to stop
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert errors.strip() == "interrupted: nothing saved is lost, the same command goes on"
    assert list(folder.glob("runs/*/*/checkpoint.pt"))


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_study_in_one_line(tmp_path):
    study, folder = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(STUDY.format(steps=2000))
    process = subprocess.Popen(
        command(study, folder, "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 180
    while not list(folder.glob("runs/*/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children}
    workers = [int(child) for child, line in commands.items() if "spawn_main" in line]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert "a training process died" in errors
    assert "the same command goes on" in errors
