import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.executors import (
    BackOff,
    InfrastructureDown,
    InProcess,
    LocalProcesses,
    Measurement,
    Outcome,
    SetupError,
    run,
)
from dse.store import read_store
from dse.trial import OPEN

AT_ONCE = BackOff(0.0)


def campaign(store=None, size=40, **options):
    space = dse.Space([dse.Ordinal("x", range(size))])
    return dse.Campaign(
        space, [dse.Objective("loss")], store=store, **{"seed": 0, "method": "sobol", **options}
    )


def good(p):
    return {"loss": float(p["x"])}


class Scripted:
    """An executor whose outcomes arrive when and as a test says; it counts what is asked of it."""

    def __init__(self, workers, script):
        self.workers, self.script = workers, script
        self.running, self.cancelled, self.most, self.number = {}, [], 0, 0

    def prepare(self, evaluator):
        pass

    def submit(self, evaluator, parameters):
        self.number += 1
        self.running[self.number] = parameters
        assert len(self.running) <= self.workers
        self.most = max(self.most, len(self.running))
        return self.number

    def poll(self, timeout_s):
        if timeout_s == 0.0:
            return []
        outcomes = self.script(dict(self.running))
        for handle, _ in outcomes:
            del self.running[handle]
        return outcomes

    def cancel(self, handle):
        self.cancelled.append(handle)
        del self.running[handle]

    def close(self):
        pass


def done(parameters):
    return Outcome("done", Measurement(good(parameters)), seconds=0.5)


LOST = Outcome("infrastructure", error="server down")


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (-1, {}, "budget must be at least 0, got -1"),
        (True, {}, "budget must be at least 0, got True"),
        (1, {"most_abandoned": 0}, "most_abandoned must be at least 1, got 0"),
    ],
)
def test_a_bad_option_is_named(budget, options, message):
    with pytest.raises(ValueError, match=message):
        run(campaign(), good, InProcess(), budget=budget, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1.0, 2.0, 3.0), "waits must be"),
        ((2.0, 2.0, 1.0), "waits must be"),
        ((1.0, 0.5, 3.0), "factor must be"),
        ((float("nan"), 2.0, 3.0), "waits must be"),
    ],
)
def test_a_bad_back_off_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        BackOff(*values)


def test_waits_grow_by_the_factor_up_to_the_longest():
    assert [BackOff(1.0, 4.0, 50.0).wait_s(n) for n in (1, 2, 3, 4, 5000)] == [1.0, 4.0, 16.0, 50.0, 50.0]


def test_in_this_process_a_run_is_the_loop_that_a_person_would_write():
    by_hand, by_runner = campaign(), campaign()
    for _ in range(12):
        (trial,) = by_hand.ask()
        by_hand.tell(trial, good(trial.parameters))
    run(by_runner, lambda p: good(p), InProcess(), budget=12)
    columns = ["id", "state", "x", "loss"]
    assert by_hand.frame()[columns].equals(by_runner.frame()[columns])


def test_all_workers_are_kept_busy_and_the_budget_is_never_exceeded():
    executor = Scripted(4, lambda running: [(min(running), done(running[min(running)]))])
    c = campaign()
    run(c, good, executor, budget=10)
    assert (c.finished, len(c.trials), executor.most) == (10, 10, 4)
    run(c, good, executor, budget=10)
    assert len(c.trials) == 10
    small = campaign(size=6)
    run(small, good, executor, budget=10)
    assert (small.finished, len(small.trials)) == (6, 6)  # no design is left


def test_a_proposal_sees_every_result_and_every_pending_trial():
    seen = []

    class Watching(dse.Campaign):
        def ask(self, n=1):
            seen.append([str(trial.state) for trial in self.trials])
            return super().ask(n)

    space = dse.Space([dse.Ordinal("x", range(40))])
    c = Watching(space, [dse.Objective("loss")], seed=0, method="sobol")
    run(c, good, Scripted(2, lambda running: [(min(running), done(running[min(running)]))]), budget=4)
    assert seen == [[], ["done", "running"], ["done", "done", "running"]]


@settings(max_examples=20)
@given(order=st.permutations(range(8)))
def test_results_that_come_together_are_told_in_the_order_of_their_trials(order):
    told = []
    executor = Scripted(
        8, lambda running: [(h, done(running[h])) for _, h in sorted(zip(order, running, strict=True))]
    )
    run(
        campaign(),
        good,
        executor,
        budget=8,
        on_event=lambda e: told.append(e.trial.id) if isinstance(e, dse.Done) else None,
    )
    assert told == list(range(8))


def test_a_lost_trial_waits_longer_each_time_while_the_others_go_on():
    failures, moments = [3], []

    def script(running):
        handle = min(running)
        if running[handle]["x"] == first and failures[0]:
            failures[0] -= 1
            moments.append(time.monotonic())
            return [(handle, LOST)]
        time.sleep(0.01)
        return [(handle, done(running[handle]))]

    c = campaign()
    first = campaign().ask()[0].parameters["x"]
    states = []
    run(
        c,
        good,
        Scripted(1, script),
        budget=30,
        backoff=BackOff(0.05, 2.0, 10.0),
        on_event=lambda e: states.append((e.trial.id, str(e.trial.state))) if e.trial.id == 0 else None,
    )
    assert (c.trials[0].state, c.trials[0].attempts, c.finished) == ("done", 3, 30)
    waits = [after - before for before, after in pairwise(moments)]
    assert waits[0] >= 0.05
    assert waits[1] >= 0.1
    assert [state for _, state in states] == [
        *["pending", "running", "lost"] * 3,
        "pending",
        "running",
        "done",
    ]


def test_a_run_gives_up_in_one_line_and_leaves_the_others_to_be_asked_again():
    executor = Scripted(4, lambda running: [(min(running), LOST)])
    c = campaign()
    message = r"the infrastructure failed 3 trials in a row, 4 times each; the last error: server down"
    with pytest.raises(InfrastructureDown, match=message) as caught:
        run(c, good, executor, budget=30, backoff=AT_ONCE)
    assert "\n" not in str(caught.value)
    assert executor.running == {}
    states = [str(trial.state) for trial in c.trials]
    assert states.count("abandoned") == 3
    waiting = [trial.id for trial in c.trials if trial.state in OPEN]
    assert waiting
    assert [trial.id for trial in c.ask(len(waiting))] == waiting
    # A trial that finishes ends the row.
    count = iter(range(1000))
    mixed = Scripted(
        1, lambda running: [(h, done(p) if next(count) % 9 == 8 else LOST) for h, p in running.items()]
    )
    run(campaign(), good, mixed, budget=3, backoff=AT_ONCE)


def test_what_a_campaign_refuses_is_a_failed_design(odd):
    c = campaign(size=11)
    outcomes = iter([odd.not_a_number, odd.infinite, odd.no_number, odd.other_name, odd.nothing, odd.raises])
    chosen = {}

    def evaluator(p):
        return chosen.setdefault(p["x"], next(outcomes, good))(p)

    run(c, evaluator, InProcess(), budget=11)
    assert [str(trial.state) for trial in c.trials] == ["failed"] * 6 + ["done"] * 5
    assert [trial.error for trial in c.trials[:6]] == [
        "ValueError: loss must be finite, got nan",
        "ValueError: loss must be finite, got -inf",
        "ValueError: loss must be a number, got 'fast'",
        "ValueError: values must be of loss; 'los' is not an objective",
        "TypeError: an evaluator must return values by objective name, got None",
        "ZeroDivisionError: no units",
    ]


def test_an_error_of_the_setup_ends_the_run_after_what_else_came_is_told():
    def script(running):
        return [(h, Outcome("setup", error="no tool") if h == 1 else done(p)) for h, p in running.items()]

    c = campaign()
    with pytest.raises(SetupError, match="no tool"):
        run(c, good, Scripted(3, script), budget=10)
    assert [str(trial.state) for trial in c.trials] == ["running", "done", "done"]
    assert [trial.id for trial in c.ask()] == [0]


def test_an_evaluator_that_cannot_be_sent_is_refused_before_a_trial_is_asked():
    c = campaign()
    with LocalProcesses(1) as executor, pytest.raises(TypeError, match="must be picklable"):
        run(c, lambda p: good(p), executor, budget=3)
    assert c.trials == ()


@pytest.mark.parametrize("kind", [dse.Asked, dse.Started, dse.Done])
def test_an_interrupt_at_any_event_loses_no_result_and_no_trial(tmp_path, kind):
    def script(running):
        return [(handle, done(parameters)) for handle, parameters in running.items()]

    path = tmp_path / "c.sqlite"
    for moment in range(6):
        left = [moment]

        def interrupt(event, left=left):
            if isinstance(event, kind):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

        with campaign(path) as c:
            executor = Scripted(3, script)
            with pytest.raises(KeyboardInterrupt):
                run(c, good, executor, budget=30, on_event=interrupt)
            assert executor.running == {}
            waiting = [trial.id for trial in c.trials if trial.state in OPEN]
            assert [trial.id for trial in c._ledger.again] == waiting
            assert len(waiting) <= 3
            if kind is dse.Done:
                assert waiting == []  # what had arrived together was told together
    with campaign(path) as c:
        run(c, good, Scripted(3, script), budget=30)
        straight = campaign()
        run(straight, good, InProcess(), budget=30)
        columns = ["id", "state", "x", "loss"]
        assert c.frame()[columns].equals(straight.frame()[columns])
    started = [record.trial for record in read_store(path)[1] if record.kind == "tell"]
    assert sorted(started) == list(range(30))


def test_a_store_that_cannot_be_written_ends_the_run_and_stays_valid(tmp_path, nothing_left, odd):
    path = tmp_path / "c.sqlite"
    with campaign(path) as c, LocalProcesses(2) as executor:
        c._ledger._store._connection.execute("PRAGMA max_page_count = 6")
        with pytest.raises(dse.StoreError, match="cannot be written: database or disk is full"):
            run(c, odd.good, executor, budget=40)
        told = [trial for trial in c.trials if trial.state == "done"]
        assert executor.poll(0.0) == []
    nothing_left()
    assert told
    with campaign(path) as c:
        assert [trial.id for trial in c.trials if trial.state == "done"] == [trial.id for trial in told]
        run(c, good, InProcess(), budget=40)
        assert c.finished == 40


def check_zoo(tmp_path, odd, nothing_left, budget, size):
    path = tmp_path / "c.sqlite"
    with campaign(path, size=size) as c, LocalProcesses(16, time_limit_s=2.0) as executor:
        run(c, odd.zoo, executor, budget=budget, backoff=BackOff(0.05), most_abandoned=100)
        trials = c.trials
    nothing_left()
    kinds = [odd.ZOO[trial.parameters["x"] % len(odd.ZOO)].__name__ for trial in trials]
    expected = {"good": "done", "slow": "done", "killed": "abandoned"}
    assert [str(trial.state) for trial in trials] == [expected.get(kind, "failed") for kind in kinds]
    assert sum(trial.state != "abandoned" for trial in trials) == budget
    assert set(kinds) == {evaluator.__name__ for evaluator in odd.ZOO}
    assert all(trial.attempts == 4 for trial in trials if trial.state == "abandoned")
    assert all(trial.error for trial in trials if trial.state != "done")
    with campaign(path, size=size) as c:
        assert [(t.id, t.state, t.values, t.error) for t in c.trials] == [
            (t.id, t.state, t.values, t.error) for t in trials
        ]


def test_sixteen_workers_and_every_kind_of_trouble_leave_every_trial_accounted_for(
    tmp_path, odd, nothing_left
):
    check_zoo(tmp_path, odd, nothing_left, budget=16, size=17)


@pytest.mark.slow
def test_a_long_campaign_of_trouble(tmp_path, odd, nothing_left):
    check_zoo(tmp_path, odd, nothing_left, budget=200, size=220)


SCRIPT = """
import signal, sys
import dse
from dse.executors import LocalProcesses, run

def main():
    import odd_evaluators
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may have it ignored
    space = dse.Space([dse.Ordinal("x", range(40))])
    with dse.Campaign(space, [dse.Objective("loss")], seed=0, method="sobol", store=sys.argv[1]) as campaign:
        with LocalProcesses(3) as executor:
            def show(event):
                print(type(event).__name__, event.trial.id, flush=True)
            run(campaign, getattr(odd_evaluators, sys.argv[3]), executor, budget=40, on_event=show)

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    main()
"""


def start(tmp_path, odd, evaluator):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        str(script),
        str(tmp_path / "c.sqlite"),
        str(Path(odd.__file__).parent),
        evaluator,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_interrupted_or_killed_is_resumed_and_leaves_no_process(tmp_path, odd, end):
    with start(tmp_path, odd, "slow") as process:
        seen = []
        while sum(line.startswith("Done") for line in seen) < 4:
            seen.append(process.stdout.readline())
            assert seen[-1]
        workers = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout.splitlines()
        process.send_signal(end)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == -end
    if end == signal.SIGINT:
        assert re.search(r"KeyboardInterrupt\n$", errors)
    sessions = {line.split()[0] for line in workers if "spawn_main" in line}
    assert len(sessions) == 3
    deadline = time.monotonic() + 20

    def alive():
        found = subprocess.run(["ps", "-eo", "sess=,stat="], capture_output=True, text=True).stdout
        return [line for line in found.splitlines() if line.split()[0] in sessions and "Z" not in line]

    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive() == []
    told = {int(line.split()[1]) for line in [*seen, *rest.splitlines()] if line.startswith("Done")}
    records = read_store(tmp_path / "c.sqlite")[1]
    assert told <= {record.trial for record in records if record.kind == "tell"}
    assert {record.kind for record in records} == {"ask", "start", "tell"}  # nobody was blamed
    with campaign(tmp_path / "c.sqlite") as c:
        open_ids = [trial.id for trial in c.trials if trial.state in OPEN]
        assert len(open_ids) <= 3
        assert [trial.id for trial in c.ask(len(open_ids))] == open_ids if open_ids else True
        for id_ in open_ids:
            c.release(c.trials[id_])
        run(c, good, InProcess(), budget=40)
        straight = campaign()
        run(straight, good, InProcess(), budget=40)
        columns = ["id", "state", "x", "loss"]
        assert c.frame()[columns].equals(straight.frame()[columns])
