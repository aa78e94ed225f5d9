"""A campaign on disk: one SQLite file of append-only events, written by one process.

Whoever opens the file finds the view `evaluations`, one row per trial. State is always rebuilt from
the table `events`, so a process that is killed loses nothing it had told.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from dse.trial import Json

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trial INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('ask', 'start', 'tell', 'fail', 'note')),
    time TEXT NOT NULL,
    payload TEXT NOT NULL CHECK (json_valid(payload))
);
CREATE INDEX events_of_trial ON events (trial, id);
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE VIEW evaluations AS
SELECT
    last.trial AS trial,
    CASE last.kind
        WHEN 'ask' THEN 'pending' WHEN 'start' THEN 'running' WHEN 'tell' THEN 'done'
        ELSE json_extract(last.payload, '$.state')
    END AS state,
    (SELECT json_extract(payload, '$.parameters') FROM events
     WHERE trial = last.trial AND kind = 'ask' ORDER BY id LIMIT 1) AS parameters,
    json_extract(last.payload, '$.values') AS "values",
    json_extract(last.payload, '$.metrics') AS metrics,
    json_extract(last.payload, '$.error') AS error,
    json_extract(last.payload, '$.seconds') AS seconds,
    (SELECT json_extract(value, '$') FROM meta WHERE key = 'seed') AS seed,
    json_extract(last.payload, '$.versions') AS versions
FROM events AS last
WHERE last.id = (SELECT MAX(id) FROM events WHERE trial = last.trial AND kind <> 'note')
ORDER BY last.trial;
"""


class StoreError(RuntimeError):
    """The file is not a campaign store that this version can read."""


class StoreMismatch(StoreError):  # noqa: N818  a public name
    """The file holds another campaign: another space, objectives, seed, method or config."""


class CampaignLocked(StoreError):  # noqa: N818  a public name
    """Another process, or another campaign object of this one, is writing the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event: its trial, its kind (ask, start, tell, fail, note) and its JSON payload."""

    trial: int
    kind: str
    payload: Mapping[str, Json]


def to_json(value: object, what: str) -> str:
    """JSON text without NaN or infinity, or ``ValueError`` that says what is not JSON."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be JSON without NaN or infinity: {error}") from None


def first_difference(stored: Json, given: Json, path: str) -> str | None:
    """Describe the first place where two JSON values differ, or return ``None``."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in [*stored, *(key for key in given if key not in stored)]:
            here = f"{path}.{key}" if path else str(key)
            if key not in stored:
                return f"{here}: absent in the store, {given[key]!r} now"
            if key not in given:
                return f"{here}: {stored[key]!r} in the store, absent now"
            if found := first_difference(stored[key], given[key], here):
                return found
        return None
    if isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        found_each = (
            first_difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(stored, given, strict=True))
        )
        return next(filter(None, found_each), None)
    # 1 and 1.0 are one number to JSON, True and 1 are two values.
    if stored == given and isinstance(stored, bool) == isinstance(given, bool):
        return None
    return f"{path}: {stored!r} in the store, {given!r} now"


class Store:
    """The events of one campaign in one file.

    Parameters
    ----------
    path
        The SQLite file; missing folders are created. ``<path>.lock`` is held while it is open and
        ``<path>.pid`` says by whom.
    identity
        What makes it the same campaign: every key is compared with the file's.
    versions
        Of the software, kept for the record and not compared.

    Raises
    ------
    CampaignLocked, StoreMismatch, StoreError
        Before anything is written.
    """

    def __init__(self, path: str | Path, *, identity: Mapping[str, Json], versions: Json = None) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise StoreError(f"a store must be a file, got the folder {self.path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._pid = Path(f"{self.path}.pid")
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CampaignLocked(f"{self.path} is in use by {self._holder()}") from None
        try:
            self._pid.write_text(f"{os.getpid()}\n")
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                self._open({**identity}, versions)
            except BaseException:
                self._connection.close()
                raise
        except BaseException as error:
            self._unlock()
            if isinstance(error, sqlite3.DatabaseError):
                raise StoreError(f"{self.path} is not a campaign store: {error}") from None
            raise

    def _holder(self) -> str:
        try:
            return f"process {int(self._pid.read_text())}"
        except (OSError, ValueError):  # between its lock and its pid, or just gone
            return "another process"

    def _open(self, identity: dict[str, Json], versions: Json) -> None:
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if tables:
            self._compare(tables, json.loads(to_json(identity, "the description of a campaign")))
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        if not tables:
            created = datetime.now(UTC).isoformat()
            meta = {"schema_version": SCHEMA_VERSION, **identity, "versions": versions, "created": created}
            rows = [(key, to_json(value, key)) for key, value in meta.items()]
            # One transaction: a file either is empty or is a complete store.
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def _compare(self, tables: set[str], identity: dict[str, Json]) -> None:
        if not {"meta", "events"} <= tables:
            raise StoreError(f"{self.path} is not a campaign store: a database with other tables")
        meta = {
            key: json.loads(text) for key, text in self._connection.execute("SELECT key, value FROM meta")
        }
        version = meta.get("schema_version")
        if version != SCHEMA_VERSION:
            raise StoreError(f"{self.path} must have schema version {SCHEMA_VERSION}, got {version!r}")
        stored = {key: meta[key] for key in identity if key in meta}
        if difference := first_difference(stored, identity, ""):
            raise StoreMismatch(f"{self.path} holds another campaign: {difference}")

    def append(self, records: Sequence[Record]) -> None:
        """Write events in one durable transaction."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [(r.trial, r.kind, time, to_json(r.payload, f"the {r.kind} of a trial")) for r in records]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(
                "INSERT INTO events (trial, kind, time, payload) VALUES (?, ?, ?, ?)", rows
            )
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def records(self) -> Iterator[Record]:
        """All events, oldest first."""
        for trial, kind, payload in self._connection.execute(
            "SELECT trial, kind, payload FROM events ORDER BY id"
        ):
            yield Record(trial, kind, json.loads(payload))

    def close(self) -> None:
        """Close the file and release the lock; closing twice is harmless."""
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock.is_locked:
            with suppress(FileNotFoundError):
                self._pid.unlink()
            self._lock.release()
