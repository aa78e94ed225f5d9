"""A campaign in a process of its own, killed at random moments until it is finished."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

SESSION = """
import json, sys, time
import dse

path, log, method, budget = *sys.argv[1:4], int(sys.argv[4])
space = dse.Space([dse.Ordinal("x", range(20)), dse.Ordinal("y", range(20))])
objectives = [dse.Objective("area", known=lambda p: p["x"] + p["y"]), dse.Objective("loss")]

def evaluate(p):
    with open(log, "a") as file:
        file.write(json.dumps(p) + "\\n")
    time.sleep(0.01)
    if p["x"] % 7 == 5:
        raise ValueError("five")
    return {"loss": (p["x"] - 13) ** 2 / 3 + (p["y"] - 2) ** 2 / 7}

with dse.Campaign(space, objectives, seed=5, method=method, initial=6, store=path) as campaign:
    campaign.run(evaluate, budget=budget)
"""


def start(folder, method, budget):
    folder.mkdir(exist_ok=True)
    files = [str(folder / name) for name in ("campaign.sqlite", "calls.log")]
    return subprocess.Popen([sys.executable, "-c", SESSION, *files, method, str(budget)])


def calls(folder):
    log = folder / "calls.log"
    return [tuple(json.loads(line).items()) for line in log.read_text().splitlines()] if log.exists() else []


def finished(folder):
    """Finished trials, as someone reads them who knows nothing of the package."""
    connection = sqlite3.connect(folder / "campaign.sqlite")
    rows = connection.execute(
        'SELECT trial, state, parameters, "values", error FROM evaluations WHERE state IN (?, ?)',
        ("done", "failed"),
    ).fetchall()
    connection.close()
    return rows


def designs(rows):
    return {tuple(json.loads(parameters).items()) for _, _, parameters, *_ in rows}


def check_kills(tmp_path, method, budget, kills, longest_seconds):
    interrupted, straight = tmp_path / "interrupted", tmp_path / "straight"
    moments = random.Random(1)
    snapshots = []
    for _ in range(kills):
        before = len(calls(interrupted))
        process = start(interrupted, method, budget)
        while len(calls(interrupted)) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, longest_seconds))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the budget must outlast the kills"
        snapshots.append((len(calls(interrupted)), finished(interrupted)))
    for folder in (interrupted, straight):
        assert start(folder, method, budget).wait() == 0

    # What was finished when a process died is still there, and was never evaluated again.
    final = finished(interrupted)
    for mark, rows in snapshots:
        assert set(rows) <= set(final)
        assert designs(rows).isdisjoint(calls(interrupted)[mark:])
    assert len(calls(interrupted)) <= budget + kills
    # The history is that of a campaign nobody killed.
    assert final == finished(straight)
    assert len(final) == budget
    assert {state for _, state, *_ in final} == {"done", "failed"}


def test_a_killed_campaign_loses_no_result_and_repeats_no_finished_evaluation(tmp_path):
    check_kills(tmp_path, "sobol", budget=40, kills=5, longest_seconds=0.06)


@pytest.mark.slow
def test_a_killed_campaign_by_model_continues_as_if_nothing_had_happened(tmp_path):
    check_kills(tmp_path, "qlognehvi", budget=24, kills=5, longest_seconds=0.8)
