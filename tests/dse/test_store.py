import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import dse
import dse.store as store_module
from dse._schema import restate
from dse.ledger import Ledger
from dse.store import Record, Store, StoreError, first_difference, read_store


def make(path, **changes):
    options = {"seed": 3, "method": "sobol", "initial": 4, "config": {"layers": [1, 2], "name": "a"}}
    space = changes.pop(
        "space", dse.Space([dse.Ordinal("x", range(8)), dse.Ordinal("y", (1, 2, 4), log=True)])
    )
    objectives = changes.pop(
        "objectives", [dse.Objective("area", known=lambda p: p["x"]), dse.Objective("loss")]
    )
    return dse.Campaign(space, objectives, store=path, **{**options, **changes})


def evaluate(p):
    return {"loss": 1.0 / (1 + p["x"]) + p["y"]}, {"parts": {"a": 1}, "bytes": 7}


def read(path, query):
    connection = sqlite3.connect(path)
    try:
        return pd.read_sql_query(query, connection)
    finally:
        connection.close()


def test_the_view_shows_every_evaluation_to_whoever_opens_the_file(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with make(path, versions={"dse": "1"}) as campaign:
        done, failed, retried, running, _ = campaign.ask(5)
        campaign.tell(done, {"loss": 0.5}, metrics={"bytes": 7, "parts": {"a": 1}}, seconds=2.5)
        campaign.fail(failed, "does not fit")
        campaign.fail(retried, "no licence", kind="infrastructure")
        campaign.start(running)
        table = read(path, "SELECT * FROM evaluations")  # while it is being written
    assert list(table["state"]) == ["done", "failed", "lost", "running", "pending"]
    assert list(table["trial"]) == [0, 1, 2, 3, 4]
    assert [json.loads(text) for text in table["parameters"]] == [t.parameters for t in campaign.trials]
    assert json.loads(table["values"][0]) == {"area": done.parameters["x"], "loss": 0.5}
    assert json.loads(table["metrics"][0]) == {"bytes": 7, "parts": {"a": 1}}
    assert table["seconds"][0] == 2.5
    assert list(table["error"][1:3]) == ["does not fit", "no licence"]
    assert list(table["seed"]) == [3] * 5
    assert json.loads(table["versions"][0]) == {"dse": "1"}


def test_events_can_neither_be_changed_nor_deleted(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with make(path) as campaign:
        campaign.run(evaluate, budget=2)
    connection = sqlite3.connect(path)
    for statement in ("DELETE FROM events", "UPDATE events SET trial = 9"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_closed_campaign_reopens_as_it_was(tmp_path):
    path = tmp_path / "deep" / "campaign.sqlite"
    with make(path) as campaign:
        campaign.run(evaluate, budget=5)
        campaign.fail(campaign.ask()[0], "broken")
        before = campaign.frame()
    with make(path) as campaign:
        pd.testing.assert_frame_equal(campaign.frame(), before)
        assert campaign.finished == 6
        assert campaign.trials[0].metrics == {"parts": {"a": 1}, "bytes": 7}


def test_open_trials_come_back_first_with_the_same_id_and_parameters(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with make(path) as campaign:
        trials = campaign.ask(3)
        campaign.start(trials[0])
        campaign.tell(trials[1], {"loss": 1.0})
        lost = [(trials[0].id, trials[0].parameters), (trials[2].id, trials[2].parameters)]
    with make(path) as campaign:
        assert [trial.state for trial in campaign.trials] == ["pending", "done", "pending"]
        again = campaign.ask(3)
        assert [(trial.id, trial.parameters) for trial in again[:2]] == lost
        assert again[2].id == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed: 3 in the store, 4 now"),
        ({"method": "random"}, "method: 'sobol' in the store, 'random' now"),
        ({"config": {"layers": [1, 3], "name": "a"}}, r"config.layers\[1\]: 2 in the store, 3 now"),
        ({"config": {"layers": [1, 2]}}, "config.name: 'a' in the store, absent now"),
        ({"config": {"layers": [1, 2], "name": "a", "z": 0}}, "config.z: absent in the store, 0 now"),
        (
            {"space": dse.Space([dse.Ordinal("x", range(8)), dse.Ordinal("y", (1, 2, 8), log=True)])},
            r"space.parameters\[1\].choices\[2\]: 4 in the store, 8 now",
        ),
        (
            {"objectives": [dse.Objective("area"), dse.Objective("loss")]},
            r"objectives\[0\].known: True in the store, False now",
        ),
    ],
)
def test_another_campaign_is_refused_with_the_first_difference_and_nothing_is_written(
    tmp_path, changes, message
):
    path = tmp_path / "campaign.sqlite"
    with make(path) as campaign:
        campaign.run(evaluate, budget=2)
    before = path.read_bytes()
    with pytest.raises(dse.StoreMismatch, match=message):
        make(path, **changes)
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, f"{path.name}.lock"}
    make(path).close()


def test_difference_of_equal_data_is_none_and_a_boolean_is_no_number():
    assert first_difference({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2}]}, "") is None
    assert first_difference([1], [True], "a") == "a[0]: 1 in the store, True now"


def test_a_newer_schema_is_refused_in_one_line(tmp_path):
    path = tmp_path / "campaign.sqlite"
    make(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    connection.commit()
    connection.close()
    with pytest.raises(dse.StoreError, match=r"must have schema version 1\.\.3, got 4") as caught:
        make(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(dse.StoreError, match=r"must have schema version 1\.\.3, got 4"):
        read_store(path)


def test_files_that_are_no_stores_are_refused_in_one_line_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to have a header of one hundred bytes" * 3)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE music (title)")
    connection.commit()
    connection.close()
    for path in (text, other, tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(dse.StoreError, match=r"not a campaign store|must be a file") as caught:
            make(path)
        assert "\n" not in str(caught.value)
        assert not path.is_file() or path.read_bytes() == before


HOLDER = """
import sys
from dse.store import Store
store = Store(sys.argv[1], identity={})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_store(tmp_path):
    path = tmp_path / "campaign.sqlite"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(dse.CampaignLocked) as caught:
            Store(path, identity={})
        assert str(caught.value) == f"{path} is in use by process {holder.pid}"
        holder.stdin.close()
    Store(path, identity={}).close()


def test_a_second_campaign_of_the_same_process_is_refused_until_the_first_is_closed(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with make(path), pytest.raises(dse.CampaignLocked, match=f"process {os.getpid()}"):
        make(path)
    make(path).close()


def test_a_failed_write_leaves_campaign_and_file_as_they_were(tmp_path):
    path = tmp_path / "campaign.sqlite"
    store = Store(path, identity={})
    with pytest.raises(sqlite3.IntegrityError):
        store.append([Record(0, "ask", {"parameters": {}}), Record(0, "dance", {})])
    assert list(store.records()) == []
    store.append([Record(0, "ask", {"parameters": {}})])
    assert [record.kind for record in store.records()] == ["ask"]
    store.close()


VERSION_1 = Path(__file__).parent / "data" / "version1.sqlite"  # written by a campaign when that was new


def contents(path):
    """All there is in a database, as text."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


@pytest.fixture
def version_1(tmp_path):
    return Path(shutil.copy(VERSION_1, tmp_path / "campaign.sqlite"))


def test_a_file_of_version_1_becomes_one_of_today_and_keeps_every_event(version_1, tmp_path):
    events = read(version_1, "SELECT * FROM events ORDER BY id")
    view = read(version_1, "SELECT * FROM evaluations")
    Store(version_1, identity={"seed": 3}).close()
    pd.testing.assert_frame_equal(read(version_1, "SELECT * FROM events ORDER BY id"), events)
    # What its view showed, the view of today shows in the same columns.
    pd.testing.assert_frame_equal(read(version_1, "SELECT * FROM evaluations")[list(view)], view)
    assert len(view) == 6
    assert len(events) == 18

    fresh = tmp_path / "fresh.sqlite"
    Store(fresh, identity={"seed": 3}).close()
    tables = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    pd.testing.assert_frame_equal(read(version_1, tables), read(fresh, tables))
    assert read(version_1, "SELECT value FROM meta WHERE key = 'schema_version'")["value"].item() == "3"


def test_a_migrated_file_takes_new_events_and_is_still_append_only(version_1):
    with Store_of(version_1) as store:
        before = [record.kind for record in store.records()]
        store.append([Record(6, "attach", {"parameters": {}, "values": {}})])
    with Store_of(version_1) as store:
        assert [record.kind for record in store.records()] == [*before, "attach"]
    connection = sqlite3.connect(version_1)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM events")
    (last,) = connection.execute("SELECT id FROM events ORDER BY id DESC LIMIT 1").fetchone()
    connection.close()
    assert last == 19  # numbers go on


@contextmanager
def Store_of(path, **options):
    store = Store(path, **{"identity": {"seed": 3}, **options})
    try:
        yield store
    finally:
        store.close()


def test_an_upgrade_restates_the_identity_of_an_older_file_once(version_1):
    calls = []

    def upgrade(version, identity):
        calls.append((version, sorted(identity)))
        return {**identity, "objectives": ["restated"], "constraints": []}

    wanted = {"seed": 3, "objectives": ["restated"], "constraints": []}
    for _ in range(2):
        with Store_of(version_1, identity=wanted, upgrade=upgrade) as store:
            assert store.meta["objectives"] == ["restated"]
            assert store.meta["versions"] == {"dse": "0.1.0"}
    assert calls == [(1, ["config", "initial", "method", "objectives", "seed", "space"])]


def test_a_campaign_of_version_1_says_of_itself_what_the_same_campaign_says_today(version_1):
    space = dse.Space(
        [
            dse.Ordinal("x", range(8)),
            dse.Ordinal("y", (1, 2, 4), log=True),
            dse.Categorical("flow", ("a", "b")),
        ]
    )
    objectives = [
        dse.Objective("area", known=lambda p: p["x"]),
        dse.Objective("loss", transform="log", unit="nat", threshold=9.0),
    ]
    today = {
        "seed": 3,
        "method": "sobol",
        "initial": 4,
        "config": {"layers": [1, 2]},
        "space": space.describe(),
        "objectives": [objective.describe() for objective in objectives],
        "outcome_constraints": [],
        "fidelity": None,
    }
    ledger = Ledger(space, version_1, identity=today, versions=None, upgrade=restate)
    ledger.close()
    states = ["done", "failed", "pending", "pending", "abandoned", "done"]
    assert [str(trial.state) for trial in ledger.trials] == states
    assert [trial.attempts for trial in ledger.trials] == [0, 0, 1, 0, 4, 0]
    assert [trial.id for trial in ledger.again] == [2, 3]
    assert ledger.trials[0].values == {"area": 1.0, "loss": 0.5}
    assert ledger.trials[0].parameters == {"x": 1, "y": 2, "flow": "b"}
    assert ledger.notes == [(5, "a note of the search")]
    assert restate(3, today) == restate(2, today) == today


def test_a_campaign_of_version_2_goes_on_where_it_stopped(tmp_path):
    path = Path(shutil.copy(Path(__file__).parent / "data" / "version2.sqlite", tmp_path / "campaign.sqlite"))
    wanted = [dse.Objective("area", known=lambda p: p["x"]), dse.Objective("loss", inputs=("x",))]
    before = [tuple(record.payload.items()) for record in read_store(path)[1]]
    with make(path, objectives=wanted, config={"layers": [1, 2]}) as campaign:
        assert [str(trial.state) for trial in campaign.trials] == ["done", "failed", "pending", "done"]
        assert campaign.trials[3].attached
        assert campaign.trials[0].settings == campaign.trials[0].parameters
        campaign.run(evaluate, budget=4)
        assert campaign.spent == campaign.finished == 4
    records = read_store(path)[1]
    assert [tuple(record.payload.items()) for record in records][: len(before)] == before
    assert read(path, "SELECT fidelity FROM evaluations")["fidelity"].isna().all()


def test_a_program_of_version_2_refuses_what_this_one_writes(tmp_path, monkeypatch):
    path = tmp_path / "campaign.sqlite"
    make(path).close()
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", 2)
    with pytest.raises(StoreError, match=r"must have schema version 1\.\.2, got 3"):
        Store(path, identity={"seed": 3})


@pytest.mark.parametrize(
    ("identity", "upgrade", "error", "message"),
    [
        ({"seed": 4}, None, dse.StoreMismatch, "seed: 3 in the store, 4 now"),
        ({"seed": 3, "new": 1}, None, dse.StoreMismatch, "new: absent in the store, 1 now"),
        ({"seed": 3}, lambda version, identity: {"seed": object()}, ValueError, "upgraded description"),
    ],
)
def test_an_older_file_that_is_refused_stays_as_it_is(version_1, identity, upgrade, error, message):
    before = version_1.read_bytes()
    with pytest.raises(error, match=message):
        Store(version_1, identity=identity, upgrade=upgrade)
    assert version_1.read_bytes() == before


def test_a_migration_that_fails_half_way_leaves_the_old_file(version_1, monkeypatch):
    before = contents(version_1)
    script = store_module.MIGRATIONS[1]
    monkeypatch.setitem(store_module.MIGRATIONS, 1, script + "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="cannot be written: no such table: nowhere"):
        Store(version_1, identity={"seed": 3})
    assert contents(version_1) == before
    monkeypatch.undo()
    Store(version_1, identity={"seed": 3}).close()
    assert contents(version_1) != before


def test_a_store_is_read_while_it_is_written_and_after_of_any_version_without_a_trace(tmp_path, version_1):
    path = tmp_path / "today.sqlite"
    with make(path, versions={"dse": "1"}) as campaign:
        campaign.run(evaluate, budget=2)
        meta, records = read_store(path)
    assert (meta["seed"], meta["versions"], meta["schema_version"]) == (3, {"dse": "1"}, 3)
    assert [record.kind for record in records] == ["ask", "start", "tell"] * 2
    assert records == read_store(path)[1]
    meta, records = read_store(version_1)
    assert (meta["schema_version"], len(records)) == (1, 18)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {path.name, f"{path.name}.lock", version_1.name}


def test_reading_what_is_no_store_fails_in_one_line(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to have a header of one hundred bytes" * 3)
    for path, message in [
        (text, "is not a campaign store: file is not a database"),
        (tmp_path / "absent.sqlite", "a store must be a file, got"),
        (tmp_path, "a store must be a file, got"),
    ]:
        with pytest.raises(StoreError, match=message) as caught:
            read_store(path)
        assert "\n" not in str(caught.value)


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


@pytest.fixture
def read_only():
    """A folder that may be entered and read by everybody, with a store in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with make(folder / "old.sqlite") as campaign:
            campaign.run(evaluate, budget=2)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_is_refused_in_one_line_and_left_alone(read_only):
    before = {file.name: file.read_bytes() for file in read_only.iterdir()}
    with without_privileges():
        for name in ("old.sqlite", "new.sqlite", "deeper/new.sqlite"):
            with pytest.raises(StoreError, match=f"{name} cannot be written: Permission denied") as caught:
                make(read_only / name)
            assert "\n" not in str(caught.value)
        assert len(read_store(read_only / "old.sqlite")[1]) == 6
    assert {file.name: file.read_bytes() for file in read_only.iterdir()} == before


def test_a_read_only_file_is_refused_before_the_first_result(read_only):
    read_only.chmod(0o777)
    (read_only / "old.sqlite").chmod(0o444)
    (read_only / "old.sqlite.lock").unlink()
    with without_privileges(), pytest.raises(StoreError, match=r"old\.sqlite cannot be written: Permission"):
        make(read_only / "old.sqlite")


def fill(store, start):
    """Write trials until the file takes no more; the number of those it took."""
    for count in itertools.count(start):
        record = Record(count, "ask", {"parameters": {"x": count}, "padding": "p" * 3000})
        try:
            store.append([record])
        except StoreError:
            break
    with pytest.raises(StoreError) as caught:
        store.append([record])
    assert "\n" not in str(caught.value)
    return count, str(caught.value)


def test_a_full_database_is_one_line_and_the_file_stays_valid(tmp_path):
    path = tmp_path / "campaign.sqlite"
    store = Store(path, identity={})
    store._connection.execute("PRAGMA max_page_count = 40")
    count, message = fill(store, 0)
    assert count > 5
    assert message.startswith(f"{path} cannot be written: database or disk is full")
    assert fill(store, count) == (count, message)  # again, and nothing is half written
    store._connection.execute("PRAGMA max_page_count = 80")
    assert fill(store, count)[0] > count + 5  # there is room again, without opening it anew
    store.close()
    records = read_store(path)[1]
    assert [record.trial for record in records] == list(range(len(records)))


FILLER = """
import resource, signal, sys
from dse.store import Record, Store, StoreError
store = Store(sys.argv[1], identity={})
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
trial = 0
try:
    while True:
        store.append([Record(trial, "ask", {"parameters": {}, "padding": "p" * 3000})])
        print(trial, flush=True)
        trial += 1
except StoreError as error:
    print(error)
"""


def test_when_the_system_takes_no_more_bytes_all_that_was_written_is_there(tmp_path):
    path = tmp_path / "campaign.sqlite"
    run = subprocess.run([sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True)
    *told, message = run.stdout.splitlines()
    assert message.startswith(f"{path} cannot be written: ")
    assert run.returncode == 0
    assert len(told) > 5
    with Store_of(path, identity={}) as store:
        assert [str(record.trial) for record in store.records()] == told
        store.append([Record(len(told), "ask", {"parameters": {}})])
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_events_that_do_not_fit_the_campaign_are_named(tmp_path):
    path = tmp_path / "campaign.sqlite"
    make(path).close()
    meta, _ = read_store(path)
    identity = {key: meta[key] for key in meta if key not in ("schema_version", "versions", "created")}
    with Store_of(path, identity=identity) as store:
        store.append([Record(0, "ask", {"parameters": {"x": 77, "y": 1}})])
    with pytest.raises(StoreError, match=r"event ask of trial 0 does not fit.*77"):
        make(path)
    with pytest.raises(StoreError, match="event ask of trial 0"):  # and the lock is free
        make(path)
