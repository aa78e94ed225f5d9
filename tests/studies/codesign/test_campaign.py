"""A whole campaign from the command line: results, resuming after SIGKILL, locks, other settings."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pandas as pd
import pytest

MEASURED = ["format", "accumulator_frac_bits", "chunk", "update_rounding", "rows", "dataflow",
            "scratchpad_bytes", "training_loss", "test_accuracy", "energy_pj", "trained_in"]  # fmt: skip


def command(config, folder):
    return [sys.executable, "-m", "studies.cli", "campaign", str(config), "--run", str(folder)]


def campaign(config, folder):
    return subprocess.run(command(config, folder), capture_output=True, text=True, check=False)


def told(folder):
    """Finished evaluations in the store, seen by a reader beside the running process."""
    path = folder / "campaign.sqlite"
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM events WHERE kind = 'tell'").fetchone()[0]
    except sqlite3.OperationalError:  # not created yet
        return 0


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_text):
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(tiny_text)
    return path


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = campaign(config, folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_a_run_folder_has_the_evaluations_the_settings_and_the_report(finished):
    folder, result = finished
    frame = pd.read_parquet(folder / "evaluations.parquet")
    assert (frame["state"] == "done").sum() == 5
    assert (frame["state"] == "reference").sum() == 1
    assert frame.loc[frame["state"] == "done", "energy_pj"].gt(0).all()
    parts = frame.filter(regex="^energy_(?!pj)").sum(axis=1)
    assert parts.to_numpy() == pytest.approx(frame["energy_pj"].to_numpy())
    with closing(sqlite3.connect(folder / "campaign.sqlite")) as connection:
        stored = pd.read_sql("SELECT * FROM evaluations", connection)
    assert len(stored) == 5
    assert stored["versions"].str.contains("torch").all()
    assert "evaluations = 5" in (folder / "config.toml").read_text()
    assert "## Three designs" in (folder / "report.md").read_text()
    assert "Pareto front" in result.stdout
    assert re.search(r"5/5", result.stdout)


def test_the_report_is_one_page_that_loads_nothing(finished):
    page = (finished[0] / "report.html").read_text()
    # The plotting library names hosts of map services, which no figure of ours asks for.
    own = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", own)
    for heading in (
        "Three designs to look at first",
        "Where the saving comes from",
        "What each parameter is worth",
        "Energy against quality",
        "Where the energy goes",
        "Schedule of one design",
    ):
        assert heading in own
    assert page.count('class="plotly-graph-div"') == 8
    assert own.count("accuracy: ") == own.count("traffic: ") == own.count("time: ") >= 1
    assert "float32" in own


def test_a_finished_campaign_evaluates_nothing_again(config, finished):
    folder, _ = finished
    before = told(folder)
    result = campaign(config, folder)
    assert result.returncode == 0
    assert told(folder) == before == 5


def test_a_killed_campaign_goes_on_and_ends_as_if_nothing_had_happened(config, finished, tmp_path):
    folder = tmp_path / "killed"
    for wanted in (1, 3):
        process = subprocess.Popen(
            command(config, folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while told(folder) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert told(folder) >= wanted
        _assert_session_dies(process.pid)
    result = campaign(config, folder)
    assert result.returncode == 0, result.stderr
    whole = pd.read_parquet(finished[0] / "evaluations.parquet")
    again = pd.read_parquet(folder / "evaluations.parquet")
    pd.testing.assert_frame_equal(whole[["id", *MEASURED]], again[["id", *MEASURED]])
    assert told(folder) == 5  # none was told twice


def _assert_session_dies(session):
    """Workers of a killed campaign end by themselves."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its campaign")


def test_another_configuration_is_refused_and_changes_nothing(config, finished, tmp_path):
    folder, _ = finished
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("steps = 3", "steps = 4"))
    before = _stamps(folder)
    result = campaign(other, folder)
    assert result.returncode == 2
    assert "another configuration" in result.stderr
    assert "training.steps" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert _stamps(folder) == before


def _stamps(folder):
    names = ("campaign.sqlite", "config.toml", "evaluations.parquet", "report.html")
    return {name: (folder / name).stat().st_mtime_ns for name in names}


def test_a_second_process_is_told_that_the_campaign_is_running(config, tmp_path):
    folder = tmp_path / "shared"
    first = subprocess.Popen(command(config, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "campaign.sqlite").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        second = campaign(config, folder)
        assert second.returncode == 2
        assert str(first.pid) in second.stderr
        assert len(second.stderr.splitlines()) == 1
    finally:
        first.kill()
        first.wait()


def test_failing_evaluations_are_recorded_and_the_campaign_goes_on(tmp_path, tiny_text):
    """A learning rate that float32 survives and accumulators of little range do not."""
    config = tmp_path / "failing.toml"
    config.write_text(
        tiny_text.replace("learning_rate = 0.05", "learning_rate = 1e6").replace(
            "accumulator_exp_bits = 6", "accumulator_exp_bits = 4"
        )
    )
    result = campaign(config, tmp_path / "run")
    assert result.returncode == 0, result.stderr
    frame = pd.read_parquet(tmp_path / "run" / "evaluations.parquet")
    assert (frame["state"] == "failed").sum() == 5
    errors = frame.loc[frame["state"] == "failed", "error"]
    assert errors.str.contains("the training loss is nan after 3 steps").all()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No evaluation succeeded" in page
    assert "the training loss is nan" in page


def test_a_twin_that_diverges_is_a_wrong_learning_rate(tmp_path, tiny_text):
    config = tmp_path / "wild.toml"
    config.write_text(tiny_text.replace("learning_rate = 0.05", "learning_rate = 1e30"))
    result = campaign(config, tmp_path / "run")
    assert result.returncode == 2
    assert "training.learning_rate: must let the float32 twin converge, got 1e+30" in result.stderr
    assert len(result.stderr.splitlines()) == 1


TRANSFORMER = """\
seed = 3
evaluations = 6

[training]
batch = 8
steps = 12
state_format = "e8m15"
replicates = 1

[training.task]
name = "text-transformer"
path = "nowhere.txt"
context = 8
width = 8
layers = 1
heads = 2
train = 64
test = 16

[training.optimizer]
kind = "adamw"
learning_rate = 0.01

[space]
format = ["e4m3fn", "e3m2"]
backward_format = ["e5m2", "e4m3fn"]
accumulator_exp_bits = 6
accumulator_frac_bits = [3, 6, 9]
chunk = [0, 16]
update_rounding = "stochastic"
rows = [8, 16]
columns = 8
dataflow = ["os", "ws"]
scratchpad_bytes = [32768, 65536]
offchip_bytes_per_cycle = 8

[design]
accumulator_bytes = 16384
clock_mhz = 200

[search]
initial = 5
objectives = ["test_metric", "energy_pj"]
"""


@pytest.mark.slow
def test_a_transformer_is_searched_in_bits_per_character_and_its_run_is_transferred(tmp_path):
    config, text = tmp_path / "text.toml", tmp_path / "fox.txt"
    config.write_text(TRANSFORMER)
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    result = subprocess.run(
        [*command(config, tmp_path / "first"), "--data", str(text)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    frame = pd.read_parquet(tmp_path / "first" / "evaluations.parquet")
    done = frame[frame["state"] == "done"]
    assert len(done) == 6
    assert done["test_metric"].between(1, 8).all()
    assert {"backward_format", "training_seconds"} <= set(done.columns)
    assert "test_accuracy" not in frame
    page = (tmp_path / "first" / "report.html").read_text()
    assert "bits per character" in page
    assert "AdamW" in page
    again = [
        *command(config, tmp_path / "second"),
        "--data",
        str(text),
        "--transfer",
        str(tmp_path / "first"),
    ]
    result = subprocess.run(again, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    without = subprocess.run(again[:-2], capture_output=True, text=True, check=False)
    assert without.returncode == 2
    assert "another configuration" in without.stderr
