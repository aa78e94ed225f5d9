import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dse.executors import LocalProcesses, SetupError


def outcome(executor, evaluator, x=0, patience_s=60.0):
    """Of one evaluation."""
    handle = executor.submit(evaluator, {"x": x})
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if found := executor.poll(end - time.monotonic()):
            assert [number for number, _ in found] == [handle]
            return found[0][1]
    raise AssertionError("no outcome")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an integer of at least 1, got 0"),
        ({"workers": 2.0}, "workers must be an integer of at least 1, got 2.0"),
        ({"time_limit_s": 0}, "time_limit_s must be positive, got 0"),
        ({"timeout": "never"}, "timeout must be design or infrastructure, got 'never'"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        LocalProcesses(**options)


def test_an_evaluator_that_cannot_be_sent_is_refused_before_any_work(nothing_left):
    with LocalProcesses(1) as executor:
        with pytest.raises(
            TypeError, match=r"must be picklable, as a function of a module is, got <function"
        ) as e:
            executor.prepare(lambda p: {"loss": 1.0})
        assert "\n" not in str(e.value)
        with pytest.raises(TypeError, match="an evaluator must be callable, got 3"):
            executor.prepare(3)
    nothing_left()


def test_every_kind_of_end_is_told_apart_and_the_next_evaluation_works(odd, nothing_left):
    expected = {
        "nothing": ("design", "must return values by objective name, got None"),
        "text": ("design", "must return values by objective name, got '0.5'"),
        "garbage": ("design", "must return values by objective name, got <object"),
        "unpicklable": ("design", "the result of an evaluator must be picklable"),
        "broken_on_the_way_back": ("design", "the result of an evaluator must be picklable"),
        "raises": ("design", "ZeroDivisionError: no units"),
        "no_licence": ("infrastructure", "InfrastructureError: no licence"),
        "misconfigured": ("setup", "SetupError: no tool"),
        # From here on the worker dies.
        "leaves": ("design", "left with status 3 and no result"),
        "exits": ("design", "left with status 1 and no result"),
        "crashes": ("design", "crashed with SIGSEGV"),
        "killed": ("infrastructure", "ended from outside by SIGKILL"),
        "temporary": ("infrastructure", "status 75, a temporary failure"),
    }
    with LocalProcesses(1, time_limit_s=30) as executor:
        for name, (kind, message) in expected.items():
            found = outcome(executor, getattr(odd, name))
            assert (found.kind, found.measurement) == (kind, None), name
            assert message in found.error
            assert "\n" not in found.error
        found = outcome(executor, odd.good, 5)
        assert (found.kind, found.measurement.values) == ("done", {"loss": 5.0})
    nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("leaves_in_silence", "design", "left with status 0 and no result"),
        ("aborts", "design", "crashed with SIGABRT"),
        ("terminated", "infrastructure", "ended from outside by SIGTERM"),
        ("hangs_and_ignores", "design", "exceeded its time limit of 0.5 s"),
        ("breeds_and_hangs", "design", "exceeded its time limit of 0.5 s"),
        ("forks_and_leaves", "design", "left with status 4 and no result"),
    ],
)
def test_other_ends(odd, nothing_left, name, kind, message):
    with LocalProcesses(1, time_limit_s=0.5) as executor:
        found = outcome(executor, getattr(odd, name))
        assert found.kind == kind
        assert message in found.error
    nothing_left()


def session_of(executor):
    (worker,) = executor._team
    return worker.process.pid


def members(session):
    found = subprocess.run(["ps", "-eo", "sess=,stat="], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if line.split()[0] == str(session) and "Z" not in line]


def test_at_the_time_limit_a_worker_goes_with_everything_it_started(odd, nothing_left):
    with LocalProcesses(1, time_limit_s=0.5, timeout="infrastructure") as executor:
        assert outcome(executor, odd.good).kind == "done"
        session = session_of(executor)
        found = outcome(executor, odd.breeds_and_hangs)
        assert (found.kind, found.error) == (
            "infrastructure",
            "the evaluation exceeded its time limit of 0.5 s",
        )
        assert 0.5 <= found.seconds < 30
        assert members(session) == []
    nothing_left()


def test_a_worker_is_kept_with_its_evaluator_from_one_design_to_the_next(odd, nothing_left):
    with LocalProcesses(2) as executor:
        evaluator = odd.Counter()
        losses = [outcome(executor, evaluator).measurement.values["loss"] for _ in range(3)]
        assert losses == [1.0, 2.0, 3.0]
        assert outcome(executor, odd.good).measurement.metrics["worker"] == session_of(executor)
        # Another evaluator replaced it.
        assert outcome(executor, evaluator).measurement.values["loss"] == 1.0
    nothing_left()


def test_a_measurement_passes_with_all_it_says(odd):
    with LocalProcesses(1) as executor:
        found = outcome(executor, odd.cached, 2)
    assert found.measurement == odd.cached({"x": 2})
    assert found.seconds == 123.0


def test_an_evaluator_that_cannot_be_loaded_ends_the_run(odd):
    with LocalProcesses(1) as executor:
        for _ in range(2):
            found = outcome(executor, odd.Unloadable())
            assert found.kind == "setup"
            assert "the evaluator cannot be loaded in a worker process: ValueError" in found.error
        assert outcome(executor, odd.good).kind == "done"


def test_workers_are_busy_until_polled_and_a_cancelled_evaluation_has_no_outcome(odd, nothing_left):
    with LocalProcesses(1) as executor:
        handle = executor.submit(odd.hangs, {"x": 0})
        with pytest.raises(RuntimeError, match="all 1 workers are busy"):
            executor.submit(odd.good, {"x": 1})
        assert executor.poll(0.0) == []
        executor.cancel(handle)
        executor.cancel(handle)
        executor.cancel(99)
        assert executor.poll(0.0) == []
        assert outcome(executor, odd.good).kind == "done"
        idle = session_of(executor)
        os.kill(idle, signal.SIGKILL)
        os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
        assert outcome(executor, odd.good).kind == "done"
    executor.close()
    nothing_left()


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import odd_evaluators
from dse.executors import LocalProcesses
executor = LocalProcesses(1)
executor.submit(odd_evaluators.breeds_and_hangs, {"x": 0})
while not executor._team[0].begun:
    executor.poll(0.05)
time.sleep(0.3)
print(executor._team[0].process.pid, flush=True)
if sys.argv[2] == "wait":
    time.sleep(1000)
"""


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_nothing_outlives_its_parent(odd, tmp_path, end):
    """Killed, or left without closing the executor."""
    script = tmp_path / "parent.py"
    script.write_text(
        'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in PARENT.splitlines())
    )
    folder = str(Path(odd.__file__).parent)
    command = [sys.executable, str(script), folder, "wait" if end == "kill" else "leave"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        session = int(parent.stdout.readline())
        if end == "kill":
            parent.kill()
        assert parent.wait(30) == (-signal.SIGKILL if end == "kill" else 0)
    deadline = time.monotonic() + 20
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(session) == []


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from dse.executors import LocalProcesses\n"
        "def evaluate(p):\n    return {'loss': 1.0}\n"
        "executor = LocalProcesses(1)\n"
        "executor.submit(evaluate, {})\n"
        "print(executor.poll(60)[0][1])\n"
        "executor.close()\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert "kind='setup'" in run.stdout
    assert 'must do so under `if __name__ == "__main__":`' in run.stdout


def test_what_evaluations_print_is_kept_by_design_and_nowhere_else(tmp_path, odd, nothing_left, capfd):
    logs = tmp_path / "deeper" / "logs"

    def log_with(text):
        (found,) = [path for path in logs.iterdir() if text in path.read_bytes()]
        return found.read_bytes()

    with LocalProcesses(1, time_limit_s=3.0, logs=logs) as executor:
        assert outcome(executor, odd.talks, 0).kind == "done"
        first, *rest = log_with(b"python 0").splitlines()
        assert re.fullmatch(rb'----- 20..-..-..T..:..:..\+00:00 \{"x": 0\}', first)
        assert rest == [b"python 0", b"\xffraw", b"a program"]
        found = outcome(executor, odd.talks, 1)
        assert found.error.endswith("left with status 3 and no result; it said 'last words[31m'")
        found = outcome(executor, odd.talks, 2)
        assert found.error.endswith("time limit of 3 s; it said 'still working'")
        for _ in range(2):  # a second attempt adds to the first
            assert outcome(executor, odd.talks, 3).kind == "infrastructure"
        assert log_with(b"python 3").count(b"-----") == log_with(b"python 3").count(b"a program") == 2
        # The next evaluation of the same worker has its own; one that says nothing has no last words.
        assert outcome(executor, odd.leaves, 4).error.endswith("left with status 3 and no result")
        assert len(list(logs.iterdir())) == 5
    nothing_left()
    assert capfd.readouterr() == ("", "")
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"the folder of logs .*file/logs cannot be made: Not a directory"):
        LocalProcesses(1, logs=tmp_path / "file" / "logs")


def test_a_log_that_cannot_be_written_is_the_infrastructures_fault(tmp_path, odd):
    with LocalProcesses(1, logs=tmp_path / "logs") as executor:
        (tmp_path / "logs").rmdir()
        found = outcome(executor, odd.good, 0)
        assert found.kind == "infrastructure"
        assert re.fullmatch(r"the log .*\.log cannot be written: No such file or directory", found.error)
        (tmp_path / "logs").mkdir()
        assert outcome(executor, odd.good, 0).kind == "done"
