import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dse
from dse.executors import InProcess, LocalProcesses, Program, ProgramFailed, SetupError, run
from dse.executors import program as module
from dse.executors.base import evaluate
from dse.trial import InfrastructureError

SIMULATOR = Path(__file__).parent / "importable" / "simulator.py"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Parameters of every call of the simulator so far."""
    log = tmp_path / "calls.log"
    monkeypatch.setenv("CALLS", str(log))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def simulator(folder, **options):
    command = [sys.executable, str(SIMULATOR), "{parameters}", "{metrics}"]
    return Program(**{"command": command, "outputs": ("time", "logic"), "folder": folder, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": []}, r"command must be a list of program and arguments, got \[\]"),
        ({"command": "ls -l"}, "command must be a list of program and arguments, got 'ls -l'"),
        ({"command": ["ls", 3]}, "command must hold text only, got 3"),
        ({"command": ["no-such-program"]}, "must name a program that can be run, got 'no-such-program'"),
        ({"command": [str(SIMULATOR)]}, "must name a program that can be run, got '.*simulator.py'"),
        ({"outputs": ()}, "outputs must be a list of at least one name"),
        ({"outputs": "time"}, "outputs must be a list of at least one name, got 'time'"),
        ({"time_limit_s": 0.0}, "time_limit_s must be positive, got 0.0"),
        ({"timeout": "x"}, "timeout must be design or infrastructure, got 'x'"),
        ({"versions": {"a": float("nan")}}, "versions must be JSON"),
    ],
)
def test_a_bad_option_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        simulator(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_a_program_reads_a_design_and_writes_metrics_in_a_folder_of_its_own(tmp_path, calls):
    program = simulator(tmp_path / "work")
    parameters = {"x": 4, "flow": "a", "child": None, "order": (2, 0, 1)}
    found = program(parameters)
    assert found.values == {"time": 0.5, "logic": 3.0}
    assert found.metrics == {"note": [None, "kept"], "slack": None}  # JSON has no other number for it
    assert not found.cached
    assert calls() == [{**parameters, "order": [2, 0, 1]}]
    folder = tmp_path / "work" / program.key(parameters)
    attempt = folder / "attempt-1"
    assert {file.name for file in folder.iterdir()} == {"attempt-1", "result.json", "result.lock"}
    assert {file.name for file in attempt.iterdir()} == {"parameters.json", "metrics.json", "log.txt"}
    assert (attempt / "log.txt").read_text() == "starting good\n"
    kept = json.loads((folder / "result.json").read_text())
    assert (kept["parameters"], kept["measured"]["time"]) == (calls()[0], 0.5)
    assert found.seconds == kept["seconds"] > 0


def test_a_result_is_looked_up_and_not_computed_again(tmp_path, calls):
    first = simulator(tmp_path / "work")({"x": 4})
    again = pickle.loads(pickle.dumps(simulator(tmp_path / "work")))({"x": 4})
    assert (again.values, again.metrics, again.seconds) == (first.values, first.metrics, first.seconds)
    assert (first.cached, again.cached) == (False, True)
    # The program wrote everything then, so other outputs can be read off it, if they are there.
    assert simulator(tmp_path / "work", outputs=["logic"])({"x": 4}).values == {"logic": 3.0}
    assert len(calls()) == 1
    with pytest.raises(ProgramFailed, match="the metrics lack speed; they have time, logic, note, slack"):
        simulator(tmp_path / "work", outputs=["speed"])({"x": 4})
    assert len(calls()) == 2


def test_a_cache_is_shared_by_campaigns_in_both_directions(tmp_path, calls):
    cache = tmp_path / "cache"
    alone = simulator(tmp_path / "one")
    alone({"x": 1})
    simulator(tmp_path / "one", cache=cache)({"x": 1})  # what it has, it puts there
    other = simulator(tmp_path / "two", cache=cache)
    assert other({"x": 1}).cached
    assert not other({"x": 2}).cached
    assert simulator(tmp_path / "three", cache=cache)({"x": 2}).cached
    assert [call["x"] for call in calls()] == [1, 2]
    # Its own copy lives without the cache.
    assert simulator(tmp_path / "three")({"x": 2}).cached


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"key": 1', b"\x80"])
def test_a_damaged_result_is_computed_again(tmp_path, calls, damage):
    program = simulator(tmp_path)
    program({"x": 1})
    (tmp_path / program.key({"x": 1}) / "result.json").write_bytes(damage)
    assert not program({"x": 1}).cached
    assert program({"x": 1}).cached
    assert len(calls()) == 2


def test_the_name_of_the_folder_depends_on_what_is_computed_and_on_nothing_else(tmp_path):
    script = tmp_path / "a.py"
    script.write_text("print(1)")
    copy = tmp_path / "b.py"
    copy.write_text("print(1)")

    def key(parameters={"x": 1, "y": 2}, script=script, **options):  # noqa: B006
        command = [sys.executable, str(script), "{parameters}"]
        return simulator(tmp_path, command=command, **options).key(parameters)

    same = [key(), key({"y": 2, "x": 1}), key(script=copy), key(time_limit_s=3), key(outputs=["z"])]
    assert len(set(same)) == 1
    assert len(key()) == 32
    others = [key({"x": 1, "y": 3}), key({"x": 1}), key(versions={"tool": 2}), key({"x": 1, "y": "2"})]
    script.write_text("print(2)")
    assert len({key(), *same, *others}) == 6


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("bytes", ProgramFailed, "metrics.json must be JSON"),
        ("half", ProgramFailed, "metrics.json must be JSON"),
        ("deep", ProgramFailed, "metrics.json must be JSON"),
        ("list", ProgramFailed, r"must be an object of metrics by name, got \[1, 2\]"),
        ("huge", ProgramFailed, "metrics.json must be at most 16777216 bytes, got 16777218"),
        ("nan", ProgramFailed, "time must be a finite number, got nan"),
        ("null", ProgramFailed, "time must be a finite number, got None"),
        ("true", ProgramFailed, "time must be a finite number, got True"),
        ("text", ProgramFailed, "time must be a finite number, got 0.5"),
        ("missing", ProgramFailed, "the metrics lack logic; they have time"),
        ("reason", ProgramFailed, "^does not fit: 120 % of the RAM$"),
        ("silent", ProgramFailed, r"the program wrote no metrics.json; it said 'no licence\?'"),
        ("status1", ProgramFailed, "left with status 1; it said 'something is wrong'"),
        ("status75", InfrastructureError, "left with status 75; it said 'something is wrong'"),
        ("status127", InfrastructureError, "left with status 127"),
        ("status137", InfrastructureError, "left with status 137"),  # a shell's word for SIGKILL
        ("status139", ProgramFailed, "left with status 139"),  # and for SIGSEGV
        ("SIGKILL", InfrastructureError, "was ended by signal 9; it said 'starting SIGKILL'"),
        ("SIGTERM", InfrastructureError, "was ended by signal 15"),
        ("SIGSEGV", ProgramFailed, "was ended by signal 11"),
    ],
)
def test_every_bad_end_is_told_apart_in_one_line_and_never_kept(tmp_path, calls, mode, error, message):
    program = simulator(tmp_path)
    parameters = {"x": 1, "mode": mode}
    with pytest.raises(error, match=message) as caught:
        program(parameters)
    assert "\n" not in str(caught.value)
    folder = tmp_path / program.key(parameters)
    assert {file.name for file in folder.iterdir()} == {"attempt-1", "result.lock"}


def left_behind():
    found = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if "# left behind" in line]


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("timeout", ["design", "infrastructure"])
def test_at_the_time_limit_the_program_ends_with_all_it_started(
    tmp_path, calls, monkeypatch, stubborn, timeout
):
    monkeypatch.setattr(module, "_GRACE_S", 0.2)
    before = left_behind()
    program = simulator(tmp_path, time_limit_s=0.5, timeout=timeout)
    error = ProgramFailed if timeout == "design" else InfrastructureError
    with pytest.raises(error, match=r"exceeded its time limit of 0.5 s"):
        program({"x": 1, "mode": "hang", "stubborn": stubborn})
    time.sleep(0.1)
    assert left_behind() == before


def test_what_a_program_leaves_running_ends_with_it(tmp_path, calls):
    before = left_behind()
    assert simulator(tmp_path)({"x": 8, "mode": "daemon"}).values["time"] == 1.0
    time.sleep(0.1)
    assert left_behind() == before


def test_every_attempt_begins_in_an_empty_folder(tmp_path):
    script = 'test -e metrics.json && exit 9; echo "{\\"time\\": 1, \\"logic\\": 2}" > metrics.json; exit $1'
    for number, status in enumerate(["75", "75"], 1):
        program = simulator(tmp_path, command=["sh", "-c", script, "sh", status])
        with pytest.raises(InfrastructureError, match="status 75"):
            program({"x": 1})
        attempts = sorted(path.name for path in (tmp_path / program.key({"x": 1})).glob("attempt-*"))
        assert attempts == [f"attempt-{n}" for n in range(1, number + 1)]


def test_placeholders_braces_and_the_environment_reach_the_program(tmp_path):
    script = (
        'printf "%s|" "$@" > said; echo "{\\"time\\": 1}" > "$DSE_METRICS"; cmp "$DSE_PARAMETERS" p*.json'
    )
    program = Program(
        command=[
            "sh",
            "-c",
            script,
            "sh",
            "--rows={rows}",
            "{flow}",
            "{on}",
            "{off}",
            "{{rows}}",
            "{folder}",
            "{}",
        ],
        outputs=["time"],
        folder=tmp_path,
    )
    parameters = {"rows": 8, "flow": "a b; $x", "on": True, "off": None}
    program(parameters)
    folder = tmp_path / program.key(parameters) / "attempt-1"
    assert (folder / "said").read_text() == f"--rows=8|a b; $x|true|null|{{rows}}|{folder}|{{}}|"


def test_an_unknown_placeholder_is_an_error_of_the_setup(tmp_path):
    program = Program(command=["echo", "{rwos}"], outputs=["time"], folder=tmp_path)
    with pytest.raises(
        SetupError, match=r"one of \{parameters\}, \{metrics\}, \{folder\}, \{rows\}, got \{rwos\}"
    ):
        program({"rows": 1})


def test_files_of_the_command_are_found_from_the_folder_where_it_was_written(tmp_path, calls, monkeypatch):
    files = ["parameters.json", "metrics.json"]
    monkeypatch.chdir(SIMULATOR.parent)
    program = simulator(tmp_path, command=[sys.executable, SIMULATOR.name, *files])
    monkeypatch.chdir(tmp_path)
    assert program({"x": 8}).values["time"] == 1.0
    same = simulator(tmp_path, command=[sys.executable, str(SIMULATOR), *files])
    assert program.key({"x": 8}) == same.key({"x": 8})


def test_two_that_want_the_same_result_at_the_same_time_compute_it_once(tmp_path, calls):
    found = []

    def one(folder):
        found.append(simulator(tmp_path / folder, cache=tmp_path / "cache")({"x": 2, "seconds": 0.4}))

    threads = [threading.Thread(target=one, args=(str(n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.cached for result in found) == [False, True, True]
    assert len(calls()) == 1


def test_a_folder_that_cannot_be_written_is_a_failure_of_the_infrastructure(tmp_path, calls):
    (tmp_path / "work").write_text("a file")
    found = evaluate(simulator(tmp_path / "work"), {"x": 1})
    assert found.kind == "infrastructure"
    assert "File exists" in found.error or "Not a directory" in found.error
    assert calls() == []


def test_an_interrupt_ends_the_program_and_is_passed_on(tmp_path, calls):
    before = left_behind()
    # Whoever started the tests may have had interrupts ignored.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        deadline = time.monotonic() + 20
        while left_behind() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            simulator(tmp_path, time_limit_s=30)({"x": 1, "mode": "hang"})
    finally:
        thread.join()
        signal.signal(signal.SIGINT, usual)
    time.sleep(0.1)
    assert left_behind() == before


def test_a_cancelled_worker_takes_its_program_along(tmp_path, calls):
    before = left_behind()
    with LocalProcesses(1) as executor:
        handle = executor.submit(simulator(tmp_path), {"x": 1, "mode": "hang"})
        deadline = time.monotonic() + 30
        while left_behind() == before and time.monotonic() < deadline:
            executor.poll(0.02)
        assert left_behind() != before
        executor.cancel(handle)
        assert left_behind() == before


def test_a_campaign_of_programs_counts_what_came_from_the_cache(tmp_path, calls):
    def campaign(name):
        space = dse.Space([dse.Ordinal("x", range(4))])
        wanted = [dse.Objective("time"), dse.Objective("logic")]
        program = simulator(tmp_path / name, cache=tmp_path / "cache")
        with dse.Campaign(space, wanted, seed=0, method="sobol", store=tmp_path / f"{name}.sqlite") as found:
            run(found, program, InProcess(), budget=4)
        return found.trials

    first, second = campaign("first"), campaign("second")
    assert [trial.cached for trial in first] == [False] * 4
    assert [trial.cached for trial in second] == [True] * 4
    assert [trial.seconds for trial in first] == [trial.seconds for trial in second]
    assert len(calls()) == 4


def test_the_last_line_of_a_log_is_shown_without_what_a_terminal_would_obey(tmp_path):
    command = [
        "sh",
        "-c",
        f"printf %b {shlex.quote('first' + chr(10) + chr(92) + '033[31mlast' + chr(92) + '0377')}; exit 2",
    ]
    with pytest.raises(ProgramFailed) as caught:
        Program(command=command, outputs=["time"], folder=tmp_path)({})
    assert "last" in str(caught.value)
    assert "\x1b" not in str(caught.value)
