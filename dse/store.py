"""A campaign on disk: one SQLite file of append-only events, written by one process.

Whoever opens the file finds the view `evaluations`, one row per trial. State is always rebuilt from
the table `events`, so a process that is killed loses nothing it had told. Keep the file on a local
disk: on network file systems neither SQLite's log nor the lock is dependable.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from filelock import FileLock, Timeout

from dse._schema import CREATE, MIGRATIONS, SCHEMA_VERSION
from dse.trial import Json

# From the identity in a file of an older schema version to what the same campaign says of itself today.
Upgrade: TypeAlias = Callable[[int, dict[str, Json]], Mapping[str, Json]]


class StoreError(RuntimeError):
    """The file is not a campaign store that this version can read, or it cannot be written."""


class StoreMismatch(StoreError):  # noqa: N818  a public name
    """The file holds another campaign: another space, objectives, seed, method or config."""


class CampaignLocked(StoreError):  # noqa: N818  a public name
    """Another process, or another campaign object of this one, is writing the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event: its trial, its kind (ask, start, tell, fail, note, attach) and its JSON payload.

    Attributes
    ----------
    time
        When it was written, ISO 8601 in UTC; empty before.
    """

    trial: int
    kind: str
    payload: Mapping[str, Json]
    time: str = field(default="", compare=False)


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
    upgrade
        Called with the schema version and the identity of an older file; returns the identity as the
        same campaign states it today, which is then compared, and kept. A file of an older version is
        rewritten in one transaction, or left as it is.

    Attributes
    ----------
    meta
        What the file says of the campaign: identity, ``versions``, ``created``, ``schema_version``.

    Raises
    ------
    CampaignLocked, StoreMismatch, StoreError
        Before anything is written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        identity: Mapping[str, Json],
        versions: Json = None,
        upgrade: Upgrade | None = None,
    ) -> None:
        self.path = Path(path)
        self.meta: dict[str, Json] = {}
        if self.path.is_dir():
            raise StoreError(f"a store must be a file, got the folder {self.path}")
        self._pid = Path(f"{self.path}.pid")
        self._lock = FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CampaignLocked(f"{self.path} is in use by {self._holder()}") from None
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(error) from None
        try:
            self._pid.write_text(f"{os.getpid()}\n")
            # A file that cannot be written is refused here, not at the first result.
            with self.path.open("ab"):
                pass
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                self._open({**identity}, versions, upgrade)
            except BaseException:
                self._connection.close()
                raise
        except BaseException as error:
            self._unlock()
            if isinstance(error, sqlite3.OperationalError | OSError):
                raise self._unwritable(error) from None
            if isinstance(error, sqlite3.DatabaseError):
                raise StoreError(f"{self.path} is not a campaign store: {error}") from None
            raise

    def _unwritable(self, error: Exception) -> StoreError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StoreError(f"{self.path} cannot be written: {reason}; what it held before is untouched")

    def _holder(self) -> str:
        try:
            return f"process {int(self._pid.read_text())}"
        except (OSError, ValueError):  # between its lock and its pid, or just gone
            return "another process"

    def _open(self, identity: dict[str, Json], versions: Json, upgrade: Upgrade | None) -> None:
        if is_new := not _tables(self._connection):
            created = datetime.now(UTC).isoformat()
            self.meta = {
                "schema_version": SCHEMA_VERSION,
                **identity,
                "versions": versions,
                "created": created,
            }
        else:
            given = json.loads(to_json(identity, "the description of a campaign"))
            self.meta, version = self._compare(given, upgrade)
        rows = [(key, to_json(value, key)) for key, value in self.meta.items()]
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        # One transaction: a file is empty, or of the old version, or a complete store of this one.
        if is_new:
            self._transact([CREATE], rows)
        elif version < SCHEMA_VERSION:
            self._transact([MIGRATIONS[step] for step in range(version, SCHEMA_VERSION)], rows)

    def _transact(self, scripts: Sequence[str], meta: Sequence[tuple[str, str]]) -> None:
        try:
            self._connection.executescript("BEGIN IMMEDIATE;" + "".join(scripts))
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _compare(self, identity: dict[str, Json], upgrade: Upgrade | None) -> tuple[dict[str, Json], int]:
        """Meta data as it shall be, and the schema version of the file."""
        meta = _meta(self._connection, self.path)
        version: int = meta["schema_version"]
        stored = {key: meta[key] for key in meta if key not in ("schema_version", "versions", "created")}
        if version < SCHEMA_VERSION and upgrade is not None:
            upgraded = upgrade(version, dict(stored))
            stored = json.loads(to_json({**upgraded}, "an upgraded description"))
        compared = {key: stored[key] for key in identity if key in stored}
        if difference := first_difference(compared, identity, ""):
            raise StoreMismatch(f"{self.path} holds another campaign: {difference}")
        return {**meta, **stored, "schema_version": SCHEMA_VERSION}, version

    def append(self, records: Sequence[Record]) -> None:
        """Write events in one durable transaction: all of them are on disk afterwards, or none.

        Raises
        ------
        StoreError
            The disk is full, or the file cannot be written; it holds what it held before.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [(r.trial, r.kind, time, to_json(r.payload, f"the {r.kind} of a trial")) for r in records]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO events (trial, kind, time, payload) VALUES (?, ?, ?, ?)", rows
            )
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.OperationalError):
                raise self._unwritable(error) from None
            raise

    def _roll_back(self) -> None:
        # On a full disk SQLite may have rolled back itself, or fail to: the log is then ignored by
        # whoever opens the file next, since it lacks the commit.
        with suppress(sqlite3.OperationalError):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def records(self) -> Iterator[Record]:
        """All events, oldest first."""
        return _records(self._connection)

    def close(self) -> None:
        """Close the file and release the lock; closing twice is harmless."""
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                self._pid.unlink()
            self._lock.release()


def read_store(path: str | Path) -> tuple[dict[str, Json], list[Record]]:
    """Meta data and events of a store, which is neither changed nor locked.

    Works while a campaign writes the file, on files of every schema version up to this one, and in a
    read-only folder.

    Raises
    ------
    StoreError
        No such file, not a store, or a newer one.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"a store must be a file, got {path}")
    # Without a log beside it the file is complete; SQLite would want to create one all the same.
    is_alone = not Path(f"{path}-wal").exists()
    address = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if is_alone else ''}"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None)
        try:
            connection.execute("BEGIN")  # one moment for both
            return _meta(connection, path), list(_records(connection))
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a campaign store: {error}") from None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, Json]:
    if not {"meta", "events"} <= _tables(connection):
        raise StoreError(f"{path} is not a campaign store: a database with other tables, or none")
    meta = {key: json.loads(text) for key, text in connection.execute("SELECT key, value FROM meta")}
    version = meta.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise StoreError(f"{path} must have schema version 1..{SCHEMA_VERSION}, got {version!r}")
    return meta


def _records(connection: sqlite3.Connection) -> Iterator[Record]:
    rows = connection.execute("SELECT trial, kind, payload, time FROM events ORDER BY id")
    for trial, kind, payload, time in rows:
        yield Record(trial, kind, json.loads(payload), time)
