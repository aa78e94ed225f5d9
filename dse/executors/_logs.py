"""What evaluations print, kept in a file per design."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from dse.executors.base import SetupError
from dse.space import Value

_BEGIN = "-----"  # begins the line that begins an attempt
_READ = 4096  # bytes at the end of a log in which its last line is looked for


def prepared(folder: str | Path | None) -> Path | None:
    """Folder of logs by its whole path, made if it is not there; `SetupError` where that cannot be."""
    if folder is None:
        return None
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the folder of logs {path} cannot be made: {error.strerror or error}") from None
    return path


def log_of(folder: Path | None, parameters: Mapping[str, Value]) -> Path | None:
    """File of a design, named by its content: every attempt, in whatever process, goes there."""
    if folder is None:
        return None
    text = json.dumps(dict(parameters), sort_keys=True, default=str)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.log"


def begin(log: Path, parameters: Mapping[str, Value]) -> int:
    """Open a log at its end, say which design and when, and return its descriptor."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    os.write(handle, f"{_BEGIN} {when} {json.dumps(dict(parameters), default=str)}\n".encode())
    return handle


@contextmanager
def captured(log: Path | None, parameters: Mapping[str, Value]) -> Iterator[None]:
    """Meanwhile, standard output and error of this process, and of all it starts, go to the log."""
    if log is None:
        yield
        return
    handle = begin(log, parameters)
    saved = [(number, os.dup(number)) for number in (1, 2)]
    _flush()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what was printed before a crash is wanted
    for number, _ in saved:
        os.dup2(handle, number)
    os.close(handle)
    try:
        yield
    finally:
        _flush()
        for number, before in saved:
            os.dup2(before, number)
            os.close(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()


def last_line(log: Path) -> str:
    """Last line that was printed, as the end of a message, without what a terminal would obey."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    shown = [line for line in (_printable(line) for line in lines) if line]
    return f"; it said {shown[-1][:200]!r}" if shown and not shown[-1].startswith(_BEGIN) else ""


def _printable(line: str) -> str:
    return "".join(letter for letter in line if letter.isprintable()).strip()
