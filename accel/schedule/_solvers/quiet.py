"""Standard output without what a solver writes there, for every model that calls one."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryFile
from threading import RLock

_ALONE = RLock()  # one at a time: standard output is that of the process
_STRAY_LINE = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"


@contextmanager
def without_stray_lines() -> Iterator[None]:
    """Keep what HiGHS prints off standard output, where it would mix with a command's own.

    Some versions print lines whatever their options say (ERGO-Code/HiGHS, issue 2783), by C's ``printf``,
    below Python's streams. What Python writes meanwhile comes out.
    """
    with _ALONE:
        if _printed_to() is None:
            with _held_back():
                yield
        else:
            with _printed_to_nowhere():
                yield


@contextmanager
def _printed_to_nowhere() -> Iterator[None]:
    """Let ``printf`` write to the null device; descriptors, and so Python's streams, stay as they are."""
    stream, nowhere = _printed_to(), _null_stream()
    assert stream is not None
    before = stream.value
    stream.value = nowhere
    try:
        yield
    finally:
        stream.value = before


@cache
def _printed_to() -> ctypes.c_void_p | None:
    """C's variable ``stdout``, where it is one that can be set: in GNU's library and in macOS's.

    ``None`` elsewhere: musl keeps it in read-only memory.
    """
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        return ctypes.c_void_p.in_dll(library, "stdout")
    if sys.platform == "darwin":
        return ctypes.c_void_p.in_dll(library, "__stdoutp")
    return None


@cache
def _null_stream() -> int | None:
    """A C stream to the null device, open as long as the process lasts."""
    library = ctypes.CDLL(None, use_errno=True)
    library.fopen.restype = ctypes.c_void_p
    stream: int | None = library.fopen(os.devnull.encode(), b"w")
    if not stream:
        raise OSError(ctypes.get_errno(), "cannot be opened", os.devnull)
    return stream


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold back all that reaches the descriptor, and write it at the end, but for a line of HiGHS 1.12."""
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
