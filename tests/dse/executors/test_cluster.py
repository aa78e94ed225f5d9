import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dse
from dse.executors import BackOff, Dask, SetupError, run

distributed = pytest.importorskip("distributed", reason="an optional extra")
dask = pytest.importorskip("dask", reason="an optional extra")

# Dask's own threads and sockets close when they like.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=50,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def reachable(odd, client):
    """Let the workers import the misbehaving evaluators, as an installed package would be."""
    folder = str(Path(odd.__file__).parent)
    client.run(lambda: sys.path.append(folder) if folder not in sys.path else None)
    return odd


def outcomes(executor, handles, patience_s=60.0):
    found = {}
    end = time.monotonic() + patience_s
    while len(found) < len(handles) and time.monotonic() < end:
        found.update(executor.poll(1.0))
    assert set(found) == set(handles)
    return [found[handle] for handle in handles]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be an integer of at least 1, got 0"),
        ({"workers": 2.0}, "workers must be an integer of at least 1, got 2.0"),
        ({"time_limit_s": -1}, "time_limit_s must be positive, got -1"),
        ({"timeout": "x"}, "timeout must be design or infrastructure, got 'x'"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Dask("tcp://127.0.0.1:1", **options)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SetupError, match=r"pip install 'bitfront\[cluster\]'"):
        Dask("tcp://127.0.0.1:1")


def test_an_address_where_nobody_answers_is_named():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(SetupError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1: ") as caught,
    ):
        Dask("tcp://127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_evaluations_end_on_a_cluster_as_they_do_at_home(client, reachable):
    odd = reachable
    expected = {
        odd.good: ("done", ""),
        odd.leaves: ("design", "left with status 3 and no result"),
        odd.killed: ("infrastructure", "ended from outside by SIGKILL"),
        odd.breeds_and_hangs: ("design", "exceeded its time limit of 5 s"),
        odd.unpicklable: ("design", "must be picklable"),
    }
    with Dask(client, time_limit_s=5.0) as executor:
        assert executor.workers == 2
        handles = [executor.submit(evaluator, {"x": 3}) for evaluator in expected]
        for found, (kind, message) in zip(outcomes(executor, handles), expected.values(), strict=True):
            assert found.kind == kind
            assert message in found.error
        # A local function travels by value, unlike to processes of this machine.
        (found,) = outcomes(executor, [executor.submit(lambda p: {"loss": p["x"] + 1.0}, {"x": 3})])
        assert found.measurement.values == {"loss": 4.0}
    assert client.status == "running"  # it was not ours


def children():
    found = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if "dse.executors._apart" in line]


def wait_until(condition, patience_s=30.0):
    end = time.monotonic() + patience_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_what_evaluations_print_is_kept_by_design(client, reachable, tmp_path):
    with Dask(client, time_limit_s=5.0, logs=tmp_path / "logs") as executor:
        handles = [executor.submit(reachable.talks, {"x": x}) for x in (0, 1)]
        fine, crashed = outcomes(executor, handles)
    assert fine.kind == "done"
    assert crashed.error.endswith("left with status 3 and no result; it said 'last words[31m'")
    texts = sorted(path.read_bytes().splitlines()[1:] for path in (tmp_path / "logs").iterdir())
    assert texts[0] == [b"python 0", b"\xffraw", b"a program"]
    assert texts[1][:2] == [b"python 1", b"\xffraw"]


def test_a_cancelled_evaluation_ends_and_has_no_outcome(client, reachable):
    with Dask(client) as executor:
        handle = executor.submit(reachable.hangs, {"x": 0})
        wait_until(children)
        executor.cancel(handle)
        executor.cancel(handle)
        wait_until(lambda: not children())
        assert executor.poll(0.0) == []


def test_a_lost_worker_costs_nothing_but_time(client, reachable, tmp_path):
    calls = tmp_path / "calls"

    def evaluator(p):
        with calls.open("a") as file:
            file.write(f"{p['x']}\n")
        if len(calls.read_text().splitlines()) == 2:
            os.kill(os.getppid(), signal.SIGKILL)  # the worker, which takes this process with it
            time.sleep(60)
        return {"loss": float(p["x"])}

    space = dse.Space([dse.Ordinal("x", range(4))])
    with (
        dse.Campaign(space, [dse.Objective("loss")], seed=0, method="sobol") as campaign,
        Dask(client, workers=2) as executor,
    ):
        run(campaign, evaluator, executor, budget=4, backoff=BackOff(0.1))
        assert [(str(trial.state), trial.attempts) for trial in campaign.trials] == [("done", 0)] * 4
    assert len(calls.read_text().splitlines()) == 5  # one of them twice
    wait_until(lambda: not children())


def test_sixteen_at_a_time_and_every_kind_of_trouble_leave_every_trial_accounted_for(client, reachable):
    odd = reachable
    kinds = len(odd.ZOO)
    space = dse.Space([dse.Ordinal("x", range(kinds + 1))])
    with (
        dse.Campaign(space, [dse.Objective("loss")], seed=0, method="sobol") as campaign,
        Dask(client, workers=16, time_limit_s=4.0) as executor,
    ):
        run(campaign, odd.zoo, executor, budget=kinds + 1, backoff=BackOff(0.05), most_abandoned=100)
    expected = {"good": "done", "slow": "done", "killed": "abandoned"}
    assert sorted(trial.parameters["x"] for trial in campaign.trials) == list(range(kinds + 1))
    for trial in campaign.trials:
        name = odd.ZOO[trial.parameters["x"] % kinds].__name__
        assert (name, str(trial.state)) == (name, expected.get(name, "failed"))
        assert trial.state == "done" or trial.error
    wait_until(lambda: not children())


@pytest.mark.slow
def test_a_lost_cluster_is_a_failure_of_the_infrastructure(reachable):
    with (
        distributed.LocalCluster(n_workers=1, dashboard_address=":0", silence_logs=50) as cluster,
        Dask(cluster.scheduler_address) as executor,
    ):
        handle = executor.submit(reachable.hangs, {"x": 0})
        time.sleep(1.0)
        cluster.close()
        (found,) = outcomes(executor, [handle])
        assert found.kind == "infrastructure"
        (found,) = outcomes(executor, [executor.submit(reachable.good, {"x": 0})])
        assert found.kind == "infrastructure"
        assert "\n" not in found.error
