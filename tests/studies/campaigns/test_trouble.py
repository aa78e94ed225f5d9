"""Campaigns of the command line where evaluations, workers, disks and folders let them down."""

import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from studies.campaigns.runs import read_run

# Dask's own threads and sockets close when they like.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def refused(result, *parts):
    """Exit code 2, and one line that has these parts."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


ZOO = """
import json, os, signal, sys, time
kind = json.load(open(sys.argv[1]))["x"] % 8
os.write(1, b"\\x00\\xff garbage\\n")
if kind == 1:
    os._exit(3)
if kind == 2:
    time.sleep(1000)
if kind == 3:
    open(sys.argv[2], "w").write('{"time": NaN}')
if kind == 4:
    open(sys.argv[2], "wb").write(b"\\x80{{{")
if kind == 5:
    os.kill(os.getpid(), signal.SIGSEGV)
if kind == 6:
    print("no licence", flush=True)
    os._exit(75)
if kind in (0, 7):
    time.sleep(0.2)
    json.dump({"time": 1.0}, open(sys.argv[2], "w"))
"""
EXPECTED = {0: "done", 7: "done", 6: "abandoned"}  # all others are the design's fault


def zoo(folder: Path, designs: int) -> Path:
    """Campaign file of a program that ends in every bad way there is."""
    (folder / "zoo.py").write_text(ZOO)
    path = folder / "zoo.toml"
    path.write_text(
        f'budget = {designs}\nmethod = "sobol"\n[program]\ntime_limit_s = 3\n'
        'command = ["{python}", "zoo.py", "{parameters}", "{metrics}"]\n'
        f'[[parameters]]\nname = "x"\nkind = "integer"\nlow = 0\nhigh = {designs - 1}\n'
        '[[objectives]]\nname = "time"\n'
    )
    return path


def check_zoo(folder: Path, designs: int) -> None:
    frame = read_run(folder).frame
    assert sorted(frame["x"]) == list(range(designs))
    for row in frame.to_dict("records"):
        assert row["trial_state"] == EXPECTED.get(row["x"] % 8, "failed"), row
        assert row["trial_state"] == "done" or row["trial_error"]


@pytest.fixture
def impatient(monkeypatch):
    """Trials that the infrastructure failed are tried again at once, and as many as like may be given up."""
    import studies.campaigns.run
    from dse.executors import BackOff, run

    quick = partial(run, backoff=BackOff(0.05), most_abandoned=100)
    monkeypatch.setattr(studies.campaigns.run, "run", quick)


def test_sixteen_workers_and_every_kind_of_trouble_leave_every_trial_accounted_for(
    bitfront, tmp_path, impatient
):
    path = zoo(tmp_path, 16)
    result = bitfront("campaign", path, "--workers", 16, "--run", "run", "--no-report")
    assert result.exit_code == 0, result.output
    check_zoo(Path("run"), 16)


def test_an_executor_may_be_the_address_of_a_scheduler(bitfront, tmp_path, impatient):
    distributed = pytest.importorskip("distributed", reason="an optional extra")
    path = zoo(tmp_path, 8)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=8,
        dashboard_address=None,
        silence_logs=50,
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        # A run folder by its relative path, which means nothing to workers elsewhere.
        address = ("--executor", cluster.scheduler_address)
        result = bitfront("campaign", path, *address, "--run", "run", "--no-report")
        assert result.exit_code == 0, result.output
        check_zoo(Path("run"), 8)
        assert len(cluster.workers) == 2  # neither lost nor closed by us
    with pytest.importorskip("dask").config.set({"distributed.comm.timeouts.connect": "300ms"}):
        with_nobody = bitfront("campaign", path, "--executor", "tcp://127.0.0.1:1", "--run", "other")
    refused(with_nobody, "no Dask scheduler answers at tcp://127.0.0.1:1")


@contextmanager
def without_privileges():
    """Root may write everywhere; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_one_line_and_stays_as_it_is(bitfront, frame, monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.chdir(name)
        frame.to_csv("designs.csv", index=False)
        options = ("--table", "designs.csv", "--objectives", "time,area", "--method", "sobol")
        # Everything that is imported late is there afterwards, for nobody may not read the environment.
        assert bitfront("campaign", *options, "--budget", 4).exit_code == 0
        assert bitfront("runs").exit_code == 0
        Path("runs/designs/report.html").unlink()
        before = {path: path.read_bytes() for path in Path("runs/designs").iterdir()}
        for folder in (Path(), Path("runs"), Path("runs/designs")):
            folder.chmod(0o555)
        with without_privileges():
            more = bitfront("campaign", *options, "--budget", 6)
            new = bitfront("campaign", *options, "--budget", 6, "--run", "new")
            page, study = bitfront("report", "runs/designs"), bitfront("runs")
        for folder in (Path(), Path("runs"), Path("runs/designs")):
            folder.chmod(0o755)
        refused(more, "runs/designs/campaign.sqlite cannot be written: Permission denied")
        refused(new, "new: Permission denied")
        refused(page, "runs/designs/report.html", "Permission denied")
        assert "4 done" in study.output  # reading needs no writing
        assert {path: path.read_bytes() for path in Path("runs/designs").iterdir()} == before
        assert bitfront("campaign", *options, "--budget", 6, "--no-report").exit_code == 0
        assert read_run(Path("runs/designs")).states == {"done": 6}


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from studies.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [1_000, 40_000, 120_000])
def test_on_a_full_disk_the_run_ends_in_one_line_and_can_go_on(bitfront, table_file, limit):
    # No file may grow beyond the limit: at the beginning, early in the log, and late.
    options = f"campaign --table {table_file} --objectives time,area --method sobol --no-report".split()
    options += ["--budget", "60", "--run", "run"]
    command = [sys.executable, "-c", FULL, str(limit), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert re.match(
        r"error: run/campaign\.sqlite cannot be written: .*what it held before is untouched", line
    )
    told = [text for text in ended.stdout.splitlines() if re.match(r" *\d+/60", text)]
    assert len(told) < 60
    if told:
        assert read_run(Path("run")).states["done"] == len(told)
    assert bitfront(*options).exit_code == 0
    run = read_run(Path("run"))
    assert run.states == {"done": 60}
    assert bitfront(*[option if option != "run" else "straight" for option in options]).exit_code == 0
    names = ["trial_id", *run.names, "time", "area"]
    assert run.frame[names].equals(read_run(Path("straight")).frame[names])
