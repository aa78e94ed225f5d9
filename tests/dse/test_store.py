import json
import os
import sqlite3
import subprocess
import sys

import pandas as pd
import pytest

import dse
from dse.store import Record, Store, first_difference


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
    assert list(table["state"]) == ["done", "failed", "pending", "running", "pending"]
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
    connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    connection.commit()
    connection.close()
    with pytest.raises(dse.StoreError, match="must have schema version 1, got 2") as caught:
        make(path)
    assert "\n" not in str(caught.value)


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
