"""Standard output without a line that HiGHS writes there now and then, for every model that calls it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from threading import RLock

_ALONE = RLock()  # one at a time: the descriptor is that of the process
_STRAY_LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"


@contextmanager
def without_stray_lines() -> Iterator[None]:
    """Keep a line of HiGHS 1.12 off standard output, where it would mix with a command's own.

    The solver prints it whatever its options say (ERGO-Code/HiGHS, issue 2783), below Python's streams.
    Anything else that is written meanwhile comes out at the end.
    """
    with _ALONE, _held_back():
        yield


@contextmanager
def _held_back() -> Iterator[None]:
    try:
        sys.stdout.flush()
        before = os.dup(1)
    except (OSError, ValueError, AttributeError):  # there is no standard output to keep clean
        yield
        return
    flush = ctypes.CDLL(None).fflush if os.name == "posix" else ctypes.cdll.msvcrt.fflush
    with TemporaryFile() as held:
        flush(None)
        os.dup2(held.fileno(), 1)
        try:
            yield
        finally:
            flush(None)
            os.dup2(before, 1)
            os.close(before)
            held.seek(0)
            rest = held.read().replace(_STRAY_LINE, b"")
            while rest:
                rest = rest[os.write(1, rest) :]
