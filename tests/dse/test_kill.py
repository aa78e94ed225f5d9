"""A campaign in a process of its own, killed at random moments until it is finished."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

# Python starts and imports once; every session is a fork of it, so that a moment of its short life is
# seldom a moment of importing. A line of input is a session; its process and its end are printed.
NURSERY = """
import json, os, sys, time
import dse
from dse.executors import InProcess, run

def session(store, log, method, budget, seconds):
    space = dse.Space([dse.Ordinal("x", range(20)), dse.Ordinal("y", range(20))])
    objectives = [dse.Objective("area", known=lambda p: p["x"] + p["y"]), dse.Objective("loss")]
    lines = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None

    def note(*what):
        if log:
            os.write(lines, json.dumps(what).encode() + b"\\n")

    def evaluate(p):
        note("called", p)
        time.sleep(seconds)
        if p["x"] % 7 == 5:
            raise ValueError("five")
        return {"loss": (p["x"] - 13) ** 2 / 3 + (p["y"] - 2) ** 2 / 7}

    def told(event):
        if isinstance(event, dse.Done | dse.Failed):
            note("told", event.trial.parameters)

    with dse.Campaign(space, objectives, seed=5, method=method, initial=6, store=store) as campaign:
        run(campaign, evaluate, InProcess(), budget=budget, on_event=told)

session(None, None, sys.argv[1], 8, 0.0)  # imports what is imported late
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.close(0)
        session(*json.loads(line))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    def __init__(self, process, method, budget):
        self.process, self.method, self.budget = process, method, budget

    def run(self, folder, kill_after=None, seconds=0.002):
        """Exit status of a session in the folder; it is killed after some seconds if it still lives."""
        folder.mkdir(exist_ok=True)
        files = [str(folder / name) for name in ("campaign.sqlite", "events.log")]
        self.process.stdin.write(json.dumps([*files, self.method, self.budget, seconds]) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it was faster
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())


@contextmanager
def nursery(method, budget):
    command = [sys.executable, "-c", NURSERY, method]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield Nursery(process, method, budget)
        process.stdin.close()


def events(folder, kind):
    log = folder / "events.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [tuple(what.items()) for name, what in map(json.loads, lines) if name == kind]


def finished(folder):
    """Finished trials, as someone reads them who knows nothing of the package."""
    if not (folder / "campaign.sqlite").exists():
        return []
    connection = sqlite3.connect(folder / "campaign.sqlite")
    if not connection.execute("SELECT * FROM sqlite_master").fetchall():  # killed while it was created
        connection.close()
        return []
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = connection.execute(
        'SELECT trial, state, parameters, "values", error FROM evaluations WHERE state IN (?, ?)',
        ("done", "failed"),
    ).fetchall()
    connection.close()
    return rows


def designs(rows):
    return {tuple(json.loads(parameters).items()) for _, _, parameters, *_ in rows}


def check_kills(tmp_path, method, budget, kills, longest_seconds):
    moments = random.Random(1)
    with nursery(method, budget) as sessions:
        straight = tmp_path / "straight"
        assert sessions.run(straight) == 0
        expected = finished(straight)
        assert len(expected) == budget
        assert {state for _, state, *_ in expected} == {"done", "failed"}
        killed = rounds = 0
        while killed < kills:
            folder = tmp_path / str(rounds)
            rounds += 1
            snapshots, status = [], None
            while status != 0:
                last = killed == kills
                status = sessions.run(folder, None if last else moments.uniform(0.0, longest_seconds))
                assert status in (0, -signal.SIGKILL)
                killed += status != 0
                snapshots.append((len(events(folder, "called")), finished(folder)))
                # Whatever was told before the kill is on disk.
                assert set(events(folder, "told")) <= designs(snapshots[-1][1])
            # What was finished when a process died is still there, and was never evaluated again.
            final = finished(folder)
            for mark, rows in snapshots:
                assert set(rows) <= set(final)
                assert designs(rows).isdisjoint(events(folder, "called")[mark:])
            calls = Counter(events(folder, "called"))
            assert sum(calls.values()) <= budget + len(snapshots) - 1
            # The history is that of a campaign nobody killed.
            assert final == expected
        assert killed == kills


def test_a_killed_campaign_loses_no_result_and_repeats_no_finished_evaluation(tmp_path):
    check_kills(tmp_path, "sobol", budget=30, kills=20, longest_seconds=0.15)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path):
    check_kills(tmp_path, "sobol", budget=30, kills=200, longest_seconds=0.15)


@pytest.mark.slow
def test_a_killed_campaign_by_model_continues_as_if_nothing_had_happened(tmp_path):
    check_kills(tmp_path, "qlognehvi", budget=24, kills=10, longest_seconds=3.0)
