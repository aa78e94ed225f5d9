"""The run folder of a study: whose it is, who writes it, and where each run has its files."""

from __future__ import annotations

import copy
import os
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from dse.store import first_difference
from studies.precision.files import FolderError, write_whole

_CONFIG = "config.toml"
_LOCK, _PID = "study.lock", "study.pid"
_RESULTS = ("runs", "table.parquet", "table.csv", "runs.parquet", "bits.parquet", "report.html", "study.json")
_MARKS = ("seeds", "policies", "task", "optimizer")  # keys of every study's settings
_GROWING = ("seeds", "policies")  # lists that may get longer


class StudyFolder:
    """A folder that one process at a time writes.

    A new or empty folder becomes that of the study. One that is there already must hold the same study,
    or one that has fewer of the same seeds and policies.

    Parameters
    ----------
    path
        Missing folders are created.
    settings
        The whole study as TOML values; written to ``config.toml``.
    force
        Remove the results of another study that the folder holds.

    Raises
    ------
    FolderError
        The folder holds another study or anything else, or is in use; before anything in it is changed.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, force: bool = False) -> None:
        self.path = path
        # As it reads back.
        self._settings: dict[str, Any] = tomllib.loads(tomli_w.dumps(settings))
        self._force = force
        self._lock = FileLock(path / _LOCK)

    def __enter__(self) -> StudyFolder:
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"{self.path}: is no folder")
        self._refuse_what_is_no_study()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(f"{self.path}: is in use by {self._holder()}") from None
        try:
            (self.path / _PID).write_text(f"{os.getpid()}\n")
            if difference := self._difference():
                if not self._force:
                    raise FolderError(
                        f"{self.path}: holds another study: {difference}; "
                        f"give another folder, or --force to replace it"
                    )
                self._clear()
            write_whole(self.path / _CONFIG, tomli_w.dumps(self._settings).encode())
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unlock()

    def _refuse_what_is_no_study(self) -> None:
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        if _CONFIG not in names and (strangers := names - {_LOCK, _PID, f"{_CONFIG}.part"}):
            raise FolderError(f"{self.path}: holds no study but {min(strangers)}; give another folder")

    def _difference(self) -> str | None:
        """First key that forbids to go on with what is there."""
        path = self.path / _CONFIG
        if not path.exists():
            return None
        try:
            stored = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FolderError(f"{path}: is no TOML: {error}; give another folder") from None
        if missing := [key for key in _MARKS if key not in stored]:
            raise FolderError(f"{path}: is not of a study, it has no {missing[0]}; give another folder")
        given = copy.deepcopy(self._settings)
        for key in _GROWING:
            old, new = stored[key], given[key]
            if isinstance(old, list):
                if len(old) > len(new):
                    return f"{key}[{len(new)}]: {old[len(new)]!r} in the store, absent now"
                given[key] = new[: len(old)]
        return first_difference(stored, given, "")

    def _clear(self) -> None:
        # The settings last: until they are gone, what is left is of the study that they describe.
        for name in (*_RESULTS, _CONFIG):
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _holder(self) -> str:
        try:
            return f"process {int((self.path / _PID).read_text())}"
        except (OSError, ValueError):  # between its lock and its pid, or just gone
            return "another process"

    def _unlock(self) -> None:
        with suppress(FileNotFoundError):
            (self.path / _PID).unlink()
        self._lock.release()
