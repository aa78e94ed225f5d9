"""What the tests of executors share."""

import importlib
import os
from pathlib import Path

import pytest


@pytest.fixture
def odd(monkeypatch):
    """The module of misbehaving evaluators, which worker processes can import too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "importable"))
    return importlib.import_module("odd_evaluators")


def processes():
    """(pid, parent, session, state, command) of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            state, parent, _, session = stat.rpartition(")")[2].split()[:4]
            found.append((int(entry.name), int(parent), int(session), state, command))
    return found


@pytest.fixture
def nothing_left():
    """Call it at the end: no child that was not there before, alive or not waited for."""
    tracker = "resource_tracker"  # of multiprocessing itself, which stays

    def children():
        return {row for row in processes() if row[1] == os.getpid() and tracker not in row[4]}

    before = {row[0] for row in children()}

    def check():
        assert [row for row in children() if row[0] not in before] == []

    return check
